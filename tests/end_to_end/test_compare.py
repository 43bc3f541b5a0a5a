"""compare.py on finished runs."""

import json
import re

import pytest

from tests.conftest import some_config
from tests.end_to_end.scripts import script
from tests.worlds import write_1m
from tfrec.experiments import run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder, small = (
        write_1m(tmp_path_factory.mktemp("world")),
        {"embedding_dim": 4, "batch_size": 128, "epochs": 2},
    )
    made = []
    for model in ("popularity", "mf"):
        made.append(folder / model)
        run.train(
            some_config(
                dataset="1m",
                data_dir=str(folder),
                model=model,
                workdir=str(made[-1]),
                full_ranking=True,
                **small,
            )
        )
    return made


def test_two_tables_of_what_the_runs_recorded(runs):
    common, differing, first, second = script("compare", *map(str, runs)).split("\n\n")
    assert common.startswith("common test rows: 226 of 226\n")
    assert [line.split()[0] for line in differing.splitlines()][:2] == ["setting", "model"]
    recorded = [json.loads((folder / "metrics.json").read_text())["test"] for folder in runs]
    metrics, differences = (
        [line.split() for line in first.splitlines()],
        [line.split() for line in second.splitlines()],
    )
    assert metrics[0] == [
        "test",
        "seeds",
        "rmse",
        "mae",
        "hr@10",
        "ndcg@10",
        "recall@10",
        "mrr@10",
        "auc",
    ]
    assert metrics[1][:3] == [str(runs[0]), "-", f"{recorded[0]['rmse']:.4f}"]
    assert metrics[2][:3] == [str(runs[1]), "0", f"{recorded[1]['rmse']:.4f}"]
    assert differences[1][:4] == [
        str(runs[1]),
        "rmse",
        "60",
        f"{recorded[1]['rmse'] - recorded[0]['rmse']:+.4f}",
    ]
    value, low, high, p = map(float, differences[1][3:])
    assert low < value < high and 0 < p <= 1
    assert second.endswith("paired bootstrap over users, 10,000 draws, 95 % intervals\n")


def test_a_run_of_older_code_is_mended_by_evaluate(runs):
    """And by it alone: the very file that the run had written."""
    file = runs[1] / "users.npz"
    before = file.read_bytes()
    file.unlink()
    message = script("compare", *map(str, runs), code=1)
    command = re.fullmatch(
        r"compare\.py: .*: the run has no users\.npz, .*\. Run python scripts/(evaluate)\.py "
        r"(\S+), .*\n",
        message,
    )
    script(*command.groups())
    assert file.read_bytes() == before


def test_a_wrong_command_ends_in_one_line(tmp_path):
    assert re.fullmatch(
        "compare.py: name the folders of two finished runs or more: .*\n", script("compare", code=2)
    )
    assert re.fullmatch(
        r"compare.py: \S+: there is no run in this folder\.\n",
        script("compare", str(tmp_path), str(tmp_path), code=2),
    )
