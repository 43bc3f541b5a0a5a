import json

import pytest

from tests.conftest import some_config
from tfrec.errors import UsageError
from tfrec.experiments import protocols

R1 = {"split": "random", "loss": "mse", "l2": 0.1}
N1 = {"split": "leave_one_out", "task": "ranking", "loss": "sigmoid", "l2": 0.003}


def write_run(folder, test, **settings):
    folder.mkdir(parents=True)
    (folder / "config.flags").write_text(some_config(refit="validation", **settings).flagfile())
    (folder / "metrics.json").write_text(json.dumps({"test": test}))
    return folder


def rows(folders):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in protocols.table(folders).splitlines()[2:]
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (R1, "R1"),
        (R1 | {"validation_fraction": 0.0, "model": "item_knn", "seed": 4}, "R1"),
        (R1 | {"split_seed": 1}, None),
        (R1 | {"dataset": "100k"}, None),
        (R1 | {"evaluation_context": "static"}, None),
        (R1 | {"split": "temporal"}, "R2"),
        (R1 | {"split": "kfold", "fold": 3}, "R3"),
        (R1 | {"split": "kfold", "folds": 10}, None),
        (
            R1
            | {
                "dataset": "100k",
                "split": "files",
                "train_file": "data/u2.base",
                "test_file": "data/u2.test",
            },
            "R4",
        ),
        (
            R1
            | {
                "dataset": "100k",
                "split": "files",
                "train_file": "data/ua.base",
                "test_file": "data/ua.test",
            },
            None,
        ),
        (N1, "N1"),
        (N1 | {"dataset": "100k"}, "N2"),
        (N1 | {"split": "user_temporal", "relevance_threshold": 4.0}, "N4"),
        (N1 | {"split": "user_temporal"}, None),
    ],
)
def test_the_settings_say_which_protocol_it_is(settings, name):
    assert protocols.of(some_config(**settings)) == name


def test_seeds_are_one_row_and_the_best_stands_first(tmp_path):
    folders = [
        write_run(
            tmp_path / str(seed),
            {"rmse": 0.84 + seed / 50, "mae": 0.65},
            **R1,
            model="mf",
            seed=seed,
        )
        for seed in (0, 1)
    ]
    folders.append(
        write_run(
            tmp_path / "best", {"rmse": 0.83, "mae": 0.64}, **R1 | {"l2": 0.3}, model="hybrid"
        )
    )
    folders.append(
        write_run(tmp_path / "ranking", {"hr@10": 0.08, "ndcg@10": 0.04}, **N1, model="ease")
    )
    peer = "myFM, ids and genres: 0.8230 / 0.628"
    assert rows(folders) == [
        [
            "N1: latest-small, each user's last row",
            "`--model=ease`",
            "hr@10 / ndcg@10",
            "0.0800 / 0.0400",
            "EASE: 0.085 / 0.041",
        ],
        [
            "R1: latest-small, random 20 %",
            "`--model=hybrid --l2=0.3`",
            "rmse / mae",
            "0.8300 / 0.6400",
            peer,
        ],
        [
            "R1: latest-small, random 20 %",
            "`--model=mf`",
            "rmse / mae",
            "0.8500 ± 0.0141 / 0.6500 ± 0.0000",
            peer,
        ],
    ]


def test_folds_are_their_mean_and_missing_ones_are_told(tmp_path):
    kfold = R1 | {"split": "kfold", "model": "mf"}
    runs = {
        (seed, fold): write_run(
            tmp_path / f"{seed}-{fold}",
            {"rmse": 0.8 + fold / 10 + seed / 50},
            **kfold,
            seed=seed,
            fold=fold,
        )
        for seed in (0, 1)
        for fold in range(5)
    }
    (whole,) = rows(list(runs.values()))
    assert whole[0] == "R3: latest-small, mean of 5 folds" and whole[3] == "1.0100 ± 0.0141"
    (part,) = rows([runs[0, 0], runs[0, 1]])
    assert part[0] == "R3: latest-small, mean of 5 folds (2 of 5 folds)" and part[3] == "0.8500"


def test_the_best_peer_is_the_least_rmse_and_the_greatest_hit_rate():
    for name, peer in (
        ("R1", "myFM, ids and genres"),
        ("R4", "Surprise SVD++"),
        ("N2", "implicit ALS"),
        ("N4", "EASE"),
    ):
        metrics = dict.fromkeys(protocols.PROTOCOLS[name].metrics, 0.5)
        assert protocols._row(name, "", {0: {0: metrics}})[2][-1].startswith(f"{peer}: ")


def test_a_run_without_the_metric_is_told_how_to_have_it(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"^N1, `?--model=ease`?: a run has no hr@10\. Train it with other cut-offs",
    ):
        protocols.table(
            [write_run(tmp_path / "run", {"hr@5": 0.1, "ndcg@5": 0.1}, **N1, model="ease")]
        )


def test_runs_of_no_protocol_are_told_so(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"none of these runs follows a protocol\. There are R1 \(latest-small, random 20 "
        r"%\), R2",
    ):
        protocols.table([write_run(tmp_path / "run", {"rmse": 0.9})])
