"""configs/n3-*.flags, and a run in a folder of NCF's files."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.end_to_end.scripts import script
from tfrec.experiments import flags, loading

ROOT = Path(__file__).parents[2]
USERS, PRODUCTS, NEGATIVES = 30, 40, 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Each user takes half of the products; their last one is tested among others."""
    folder, random = tmp_path_factory.mktemp("ncf"), np.random.RandomState(0)
    lines: dict[str, list[str]] = {"train.rating": [], "test.rating": [], "test.negative": []}
    for user in range(USERS):
        *train, last = taken = random.permutation(PRODUCTS)[: PRODUCTS // 2]
        lines["train.rating"] += [
            f"{user}\t{product}\t{random.randint(1, 6)}\t{at}" for at, product in enumerate(train)
        ]
        lines["test.rating"].append(f"{user}\t{last}\t5\t{PRODUCTS}")
        others = np.setdiff1d(np.arange(PRODUCTS), taken)[:NEGATIVES]
        lines["test.negative"].append("\t".join([f"({user},{last})", *map(str, others)]))
    for name, rows in lines.items():
        (folder / f"ml-1m.{name}").write_text("\n".join(rows) + "\n")
    return folder


@pytest.mark.parametrize("name", ["mf", "ncf", "ease", "ials"])
def test_the_flag_files_name_the_files(name):
    settings = flags.read_flagfile(ROOT / "configs" / f"n3-{name}.flags")
    given = [settings.data.train_file, settings.data.test_file, settings.evaluation.candidates_file]
    assert given == ["ml-1m.train.rating", "ml-1m.test.rating", "ml-1m.test.negative"]
    assert (settings.model, settings.data.columns) == (
        name,
        ("user", "product", "rating", "timestamp"),
    )


def test_a_run_needs_no_more_than_the_flag_file(folder, monkeypatch):
    monkeypatch.chdir(folder)
    flagfile = ROOT / "configs" / "n3-mf.flags"
    script("train", f"--flagfile={flagfile}", "--workdir=run", "--epochs=1")
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    for part in ("validation", "test"):
        assert metrics[part]["hr@10"] == 1  # there are ten candidates
        assert metrics[part]["ndcg@10"] < 1
    assert metrics["refit"]["rows"] == USERS * (PRODUCTS // 2 - 1)
    assert "--validation_rule=leave_one_out" in (folder / "run" / "config.flags").read_text()
    asked = flags.read_flagfile(flagfile).replace(validation_rule="split", workdir="other")
    split, settings = loading.load(asked)
    assert settings.validation_rule == "split"  # as the user says
    assert len(split.validation) == int(0.1 * USERS * (PRODUCTS // 2 - 1))
