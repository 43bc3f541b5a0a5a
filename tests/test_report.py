import json

import pytest

from tests.conftest import some_config
from tfrec.errors import UsageError
from tfrec.experiments import report

TRAIN = {"seconds": 1.25, "examples_per_second": 123456.7, "epochs": 3, "best_epoch": 2}


def lines(test, baselines):
    result = {
        "model": "mf",
        "test": test,
        "baselines": baselines,
        "train": TRAIN,
        "parameters": 1234567,
    }
    return report.table(result).splitlines()


def test_columns_line_up_and_what_is_missing_is_a_dash():
    table = lines(
        {"rmse": 0.87, "hr@5": 0.1, "hr@10": 0.2, "auc": 0.75},
        {"bias": {"rmse": 0.9}, "popularity": {"hr@10": 0.31}},
    )
    assert [line.split() for line in table[:-1]] == [
        ["test", "rmse", "hr@10", "auc"],
        ["mf", "0.8700", "0.2000", "0.7500"],
        ["baseline", "bias", "0.9000", "-", "-"],
        ["baseline", "popularity", "-", "0.3100", "-"],
    ]
    assert len({len(line) for line in table[:-1]}) == 1
    assert (
        table[-1]
        == "1,234,567 parameters, kept that of epoch 2 of 3, 123,457 rows/s, fitted in 1.2 s"
    )


def test_without_a_cutoff_of_ten_the_least_is_shown():
    assert lines({"hr@20": 0.3, "hr@5": 0.1}, {})[0].split() == ["test", "hr@5"]


def test_without_rankings_there_is_no_ranking_column():
    assert lines({"rmse": 0.87}, {})[0].split() == ["test", "rmse"]


def test_slices_are_a_second_aligned_table_and_what_a_slice_lacks_is_a_dash():
    slices = {
        "users": {
            "warm": {"rows": 1234, "rmse": 0.8, "hr@10": 0.5},
            "cold": {"rows": 7, "rmse": 1.1},
        },
        "products": {},
    }
    result = {
        "model": "mf",
        "test": {"rmse": 0.87},
        "baselines": {},
        "slices": slices,
        "train": TRAIN,
        "parameters": 1,
    }
    table = report.table(result).splitlines()
    assert [line.split() for line in table[2:7]] == [
        [],
        ["test", "slice", "rows", "rmse", "hr@10"],
        ["users", "warm", "1,234", "0.8000", "0.5000"],
        ["users", "cold", "7", "1.1000", "-"],
        [],
    ]
    assert len({len(line) for line in table[3:6]}) == 1
    assert len(table) == 8


def write_run(folder, rmse, **settings):
    config, result = some_config(loss="mse", l2=0.1, split="random", **settings), {"rmse": rmse}
    folder.mkdir()
    (folder / "config.flags").write_text(config.flagfile())
    baselines = {"bias": {"rmse": 0.9}, "popularity": {"hr@10": 0.3}}
    (folder / "metrics.json").write_text(
        json.dumps(
            {
                "task": "rating",
                "split": "random",
                "test": result,
                "baselines": baselines,
                "train": {"seconds": 3.2},
            }
        )
    )
    return folder


def test_runs_that_differ_in_the_seed_are_one_line_with_their_spread(tmp_path):
    folders = [
        write_run(tmp_path / str(seed), rmse, model="mf", seed=seed)
        for seed, rmse in ((0, 0.80), (1, 0.84), (2, 0.88))
    ]
    folders.append(write_run(tmp_path / "knn", 0.85, model="item_knn", neighbours=20))
    assert report.of_runs(folders, ["rmse"]).splitlines() == [
        "| command, mean ± spread of 3 seeds | rmse | fitted in |",
        "| --- | --- | --- |",
        "| `python scripts/train.py --split=random --model=mf` | 0.8400 ± 0.0400 | 3 s |",
        "| `python scripts/train.py --split=random --model=item_knn --neighbours=20` | 0.8500 | 3 "
        "s |",
        "| the bias baseline, rating, random split | 0.9000 | - |",
    ]


def test_a_metric_that_no_run_has_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--metrics=rsme: no run has it\. There are rmse\."):
        report.of_runs([write_run(tmp_path / "run", 0.8)], ["rsme"])
