import json
from pathlib import Path

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


def write_run(folder, rmse, more=None, bias=0.9, **settings):
    config, result = (
        some_config(loss="mse", l2=0.1, split="random", refit="validation", **settings),
        {"rmse": rmse} | (more or {}),
    )
    folder.mkdir()
    (folder / "config.flags").write_text(config.flagfile())
    baselines = {"bias": {"rmse": bias} | (more or {}), "popularity": {"hr@10": 0.3}}
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


def test_runs_that_differ_in_the_seed_are_one_line_with_their_spread(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folders = [
        write_run(Path(f"mf-{seed}"), rmse, model="mf", seed=seed)
        for seed, rmse in ((0, 0.80), (1, 0.84), (2, 0.88))
    ]
    folders.append(write_run(Path("knn"), 0.85, model="item_knn", neighbours=20))
    table, settings = report.of_runs(folders, []).split("\n\n")
    assert table.splitlines() == [
        "run                    seeds             rmse  fitted in",
        "mf-0                   0,1,2  0.8400 ± 0.0400        3 s",
        "knn                    -               0.8500        3 s",
        "baseline bias, random  -               0.9000          -",
    ]
    assert settings.splitlines() == [
        "mf-0: --model=mf",
        "knn: --model=item_knn --neighbours=20",
        "all: --split=random",
    ]


def test_a_table_of_runs_is_at_most_120_columns_wide(tmp_path):
    """Whatever the folders, the metrics and the settings are."""
    metrics = {f"metric_{number:02}": 12.3456 for number in range(30)}
    terms = ("bias", "dot", "user_day_bias", "feature_factors", "user_history", "context")
    folders = [
        write_run(tmp_path / ("x" * 99 + name), 0.8, metrics, model="hybrid", terms=terms[:count])
        for name, count in (("a", 5), ("b", 6))
    ] + [write_run(tmp_path / f"seed_{seed}", 0.8, model="mf", seed=seed) for seed in range(60)]
    text = report.of_runs(folders, sorted(metrics))
    assert max(map(len, text.splitlines())) <= 120
    assert all(text.count(f" {name}") == 1 for name in metrics)
    assert text.count("12.3456") == 90  # of two runs, and of their baseline


def test_a_baseline_is_one_row_where_runs_agree_on_it_and_names_its_run_where_not(
    tmp_path, monkeypatch
):
    """A run with fewer metrics of the same test rows agrees."""
    monkeypatch.chdir(tmp_path)
    ranked = {"hr@10": 0.25}
    folders = [
        write_run(Path("rated"), 0.8, model="mf"),
        write_run(Path("also_ranked"), 0.8, ranked, model="item_knn"),
    ]
    rows = [line.split("  ")[0] for line in report.of_runs(folders, []).splitlines()]
    of_bias = [row for row in rows if row.startswith("baseline bias")]
    assert of_bias == ["baseline bias, random"]
    folders.append(write_run(Path("b"), 0.8, bias=0.7, model="mf", split_seed=1))
    rows = [line.split("  ")[0] for line in report.of_runs(folders, []).splitlines()]
    of_bias = [row for row in rows if row.startswith("baseline bias")]
    assert of_bias == ["baseline bias, random, also_ranked", "baseline bias, random, b"]


def test_a_metric_that_no_run_has_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"--metrics=rsme: no run has it\. There are rmse\."):
        report.of_runs([write_run(tmp_path / "run", 0.8)], ["rsme"])
