"""The SavedModel of a run on one's own files with text ids.

Every signature through saved_model_cli, in a process without tfrec.
"""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from tfrec.experiments import run
from tfrec.experiments.config import make_config

CALLS = """
import json, sys
from tensorflow.python.tools import saved_model_cli
for call in json.loads(sys.argv[1]):
    sys.argv = ["saved_model_cli", "run", *call]
    try:
        saved_model_cli.main()
    except SystemExit as end:
        assert not end.code, end.code
assert "tfrec" not in sys.modules
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    random = np.random.RandomState(0)
    pairs = random.permutation(20 * 12)[:150]
    rows = {
        "user": [f"u-{pair // 12}" for pair in pairs],
        "product": [f"№{pair % 12}" for pair in pairs],
        "rating": pairs % 5 + 1,
    }
    pd.DataFrame(rows).to_csv(folder / "ratings.csv", index=False)
    pd.DataFrame({"user": [f"u-{i}" for i in range(20)], "plan": ["free", "paid"] * 10}).to_csv(
        folder / "users.csv", index=False
    )
    files = {
        "interactions": str(folder / "ratings.csv"),
        "users": str(folder / "users.csv"),
        "users_categorical": ("plan",),
    }
    run.train(
        make_config(dataset="files", model="mf", epochs=1, workdir=str(folder / "run"), **files)
    )
    return folder / "run" / "export"


def test_every_signature_answers_through_saved_model_cli(export, tmp_path):
    users, products = np.array(["u-1", "nobody"]), np.array(["№3", "№4"])
    k, times = (
        np.array(3, np.int32),
        {"context": np.zeros((0, 0), np.float32), "timestamp": np.zeros(0, np.int64)},
    )
    lists = {"exclude": np.zeros((0, 0), "U1"), "allow": np.array(["№3", "№4", "№5", "№6", ""])}
    inputs = {
        "score": {"user": users, "product": products, **times},
        "recommend": {"user": users, "k": k, **times, "exclude_seen": np.array(False), **lists},
        "similar": {"product": products, "k": k},
        "recommend_for_history": {
            "product": products[None],
            "rating": np.zeros((0, 2), np.float32),
            "k": k,
            **times,
            **lists,
        },
        "recommend_by_attributes": {"attribute": np.array([["plan=free", ""]]), "k": k, **lists},
    }
    calls = []
    for signature, named in inputs.items():
        texts = {
            name: np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
            for name, values in named.items()
        }
        np.savez(tmp_path / f"{signature}.npz", **texts)
        files = ";".join(f"{name}={tmp_path / signature}.npz[{name}]" for name in texts)
        where = [
            f"--dir={export}",
            "--tag_set=serve",
            f"--signature_def={signature}",
            f"--outdir={tmp_path / signature}",
        ]
        calls.append([*where, f"--inputs={files}"])
        (tmp_path / signature).mkdir()
    subprocess.run(
        [sys.executable, "-c", CALLS, json.dumps(calls)],
        check=True,
        capture_output=True,
        timeout=300,
        cwd=tmp_path,
    )
    answers = {
        signature: {
            path.stem: np.load(path, allow_pickle=True) for path in (tmp_path / signature).iterdir()
        }
        for signature in inputs
    }
    assert answers["score"]["source"].tolist() == [b"model", b"popularity"]
    assert np.isfinite(answers["score"]["rating"]).all()
    allowed = {name.encode() for name in lists["allow"] if name}
    for signature, source in (
        ("recommend", b"model"),
        ("recommend_for_history", b"fold_in"),
        ("recommend_by_attributes", b"demographic"),
    ):
        assert answers[signature]["source"][0] == source
        assert set(answers[signature]["product"].ravel()) <= allowed | {b""}
    assert set(answers["recommend_for_history"]["product"].ravel()) == {
        "№5".encode(),
        "№6".encode(),
        b"",
    }  # not what is liked already
    assert products[0].encode() not in answers["similar"]["product"][0]
