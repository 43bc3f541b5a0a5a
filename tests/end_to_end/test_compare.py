"""compare.py on finished runs."""

import json
import re

import numpy as np
import pandas as pd
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
    assert common.startswith("common test rows: 226 of 226\nusers with common test rows: 60 of 60")
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


def test_runs_of_other_splits_and_features_meet_over_the_rows_that_both_test(tmp_path):
    """The oracle joins the raw rows on their raw ids and times, and counts whole errors."""
    data, tables, folders = write_1m(tmp_path / "data"), [], []
    for name, settings in (
        ("mf", {"model": "mf", "split_seed": 0}),
        ("hybrid", {"model": "hybrid", "split_seed": 1, "year_bins": 5}),
    ):
        folders.append(tmp_path / name)
        small = {"embedding_dim": 4, "epochs": 1, "split": "random", "task": "rating"}
        made = run.train(
            some_config(
                dataset="1m", data_dir=str(data), workdir=str(folders[-1]), **small, **settings
            )
        )
        _, predictions, evaluator = made.evaluate()
        rows, catalog = evaluator.rows, evaluator.catalog
        predicted = np.clip(predictions.scores, 1, 5)
        columns = {
            "user": catalog.user_ids[rows.user],
            "product": catalog.product_ids[rows.product],
            "time": rows.timestamp,
            "error": predicted - rows.rating,
        }
        tables.append(pd.DataFrame(columns))
    both = tables[0].merge(tables[1], on=["user", "product", "time"])
    assert 0 < len(both) < len(tables[0])
    common, differing, metrics, differences = script("compare", *map(str, folders)).split("\n\n")
    counts = [str(len(both)), str(both.user.nunique())]
    assert [line.split(": ")[1].split()[0] for line in common.splitlines()] == counts
    assert {line.split()[0] for line in differing.splitlines()} >= {
        "model",
        "split_seed",
        "year_bins",
    }
    rmse, mae = (
        [float(function(both[name])) for name in ("error_x", "error_y")]
        for function in (lambda e: np.sqrt(np.mean(e**2)), lambda e: np.mean(np.abs(e)))
    )
    found = [line.split()[2:] for line in metrics.splitlines()[1:]]
    assert found == [[f"{a:.4f}", f"{b:.4f}"] for a, b in zip(rmse, mae)]
    line = differences.splitlines()[1].split()
    assert line[2] == counts[1] and float(line[3]) == pytest.approx(rmse[1] - rmse[0], abs=1e-4)


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
