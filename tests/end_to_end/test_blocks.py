"""A prepared folder, trained on to the end.

Metrics, masks, export and resumption are those of the same data in memory.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import all_rows, some_config
from tfrec.data import disk, prepare
from tfrec.data.sources.synthetic import SyntheticData
from tfrec.data.to_disk import Sizes
from tfrec.errors import UsageError
from tfrec.experiments import finished, loading, parts, per_user, run
from tfrec.experiments.exported import ExportedModel

SIZES = Sizes(block=64, shard=2)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """300 users in two tastes, with repeated and unsorted rows left to prepare.py: a CSV."""
    random, folder = np.random.RandomState(0), tmp_path_factory.mktemp("source")
    lines = ["user,product,rating,timestamp"]
    for user in range(60):
        for product in random.choice(40, 15, replace=False):
            rating = 3 + (user % 2 == product % 2) + random.randint(-1, 2)
            lines.append(f"u{user},p{product},{rating},{random.randint(10**9)}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return {"dataset": "files", "interactions": str(folder / "rows.csv"), "split": "user_temporal"}


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared") / "blocks"
    prepare.prepare(some_config(**source).data, output, sizes=SIZES)
    return output


@pytest.mark.parametrize(
    "settings",
    (
        {"model": "hybrid"},
        {"model": "mf", "task": "rating"},
        {"model": "item_knn"},
        {"model": "ease", "ease_l2": 50.0},  # recency is picked
    ),
)
def test_a_run_from_disk_ends_as_one_from_memory(source, folder, tmp_path, settings, capsys):
    settings = {
        "epochs": 8,
        "batch_size": 64,
        "learning_rate": 0.02,
        "early_stopping": 0,
        "task": "ranking",
        "refit": "none",  # as from disk
    } | settings
    from_memory = run.train(
        some_config(**source, **settings, workdir=str(tmp_path / "memory"))
    ).record
    from_disk = run.train(
        some_config(dataset=f"blocks:{folder}", **settings, workdir=str(tmp_path / "disk"))
    ).record
    for name, metrics in from_memory["baselines"].items():
        assert from_disk["baselines"][name] == pytest.approx(metrics, rel=1e-4), name
    figure = "rmse" if settings["task"] == "rating" else "ndcg@10"
    assert from_disk["test"][figure] == pytest.approx(
        from_memory["test"][figure], rel=0.1
    )  # other batches
    served = [tf.saved_model.load(str(tmp_path / kind / "export")) for kind in ("memory", "disk")]
    for held in (
        lambda server: server._seen,
        lambda server: server._seen_splits,
        lambda server: server._of_fallbacks[0],
    ):
        np.testing.assert_array_equal(*(np.sort(held(server).numpy()) for server in served))
    tables = [ExportedModel(tmp_path / kind).for_user("u7", 3) for kind in ("memory", "disk")]
    assert (
        len(tables[0].splitlines()) == len(tables[1].splitlines())
        and "held out: 3 products" in tables[1]
    )
    again = finished.evaluate(tmp_path / "disk", {})
    assert again["test"] == pytest.approx(
        json.loads((tmp_path / "disk" / "metrics.json").read_text())["test"], rel=1e-5
    )


def test_a_model_comes_close_to_the_best_possible_rmse(tmp_path):
    """Of a world whose noise is known.

    The biases alone are a sixth above it. Settings were chosen on its validation rows.
    """
    world, output = SyntheticData(1_000, 500, 250_000), tmp_path / "world"
    prepare.prepare(some_config(dataset="synthetic").data, output, world)
    settings = {
        "model": "mf",
        "embedding_dim": 8,
        "epochs": 15,
        "batch_size": 512,
        "learning_rate": 0.005,
        "l2": 0.02,
    }
    result = run.train(
        some_config(dataset=f"blocks:{output}", **settings, workdir=str(tmp_path / "run"))
    ).record
    test = all_rows(output).test
    mean = world.mean(test.user, test.product, test.timestamp)
    floor = np.sqrt(np.mean((test.rating - mean) ** 2))
    assert (
        floor
        < result["test"]["rmse"]
        < floor * 1.06
        < floor * 1.15
        < result["baselines"]["bias"]["rmse"]
    )


def test_metrics_of_some_users_only(folder, tmp_path, capsys):
    settings = {"model": "popularity", "task": "ranking", "dataset": f"blocks:{folder}"}
    every = run.train(some_config(**settings, workdir=str(tmp_path / "every"))).record
    capsys.readouterr()
    some = run.train(
        some_config(**settings, ranked_users=20, workdir=str(tmp_path / "some"))
    ).record
    assert (
        "metrics are of 20 of the users (--ranked_users): 40 rows to validate, 60 to test"
        in capsys.readouterr().out
    )
    served = [tf.saved_model.load(str(tmp_path / kind / "export")) for kind in ("every", "some")]
    np.testing.assert_array_equal(
        *(server._seen.numpy() for server in served)
    )  # all users' rows are hidden
    assert "held out: 3 products" in ExportedModel(tmp_path / "some").for_user("u7", 3)
    ranked = per_user.read(tmp_path / "some")["ranked_key"]
    assert len(ranked) == 20
    of_every = per_user.read(tmp_path / "every")
    chosen = np.isin(of_every["ranked_key"], ranked)
    assert chosen.sum() == 20
    assert some["test"]["ndcg@10"] == pytest.approx(of_every["ndcg@10"][chosen].mean(), rel=1e-5)
    assert every["test"]["ndcg@10"] == pytest.approx(of_every["ndcg@10"].mean(), rel=1e-5)
    again = finished.evaluate(tmp_path / "some", {"ranked_users": 0})
    assert again["test"] == pytest.approx(every["test"], rel=1e-5)


def test_rows_to_validate_and_rows_to_test_are_in_memory_however_few(source, tmp_path):
    few = {"split": "random", "validation_fraction": 0.005, "test_fraction": 0.005}
    prepare.prepare(some_config(**source | few).data, tmp_path / "blocks", sizes=SIZES)
    for ranked_users in (1, 3):
        config = some_config(dataset=f"blocks:{tmp_path / 'blocks'}", ranked_users=ranked_users)
        split, config = loading.load(config)
        sample = split.sample(config.evaluation.ranked_users)
        assert sample.validation.in_memory and sample.test.in_memory
        assert len(sample.validation) and len(sample.test)


def test_a_run_of_which_all_tested_users_are_new(source, tmp_path):
    prepare.prepare(
        some_config(**source | {"split": "cold_user"}).data, tmp_path / "blocks", sizes=SIZES
    )
    result = run.train(
        some_config(
            model="mf",
            epochs=1,
            dataset=f"blocks:{tmp_path / 'blocks'}",
            workdir=str(tmp_path / "run"),
        )
    ).record
    assert result["slices"]["users"].keys() == {"cold"}


@pytest.mark.parametrize(
    "settings, words",
    (
        (
            {"split": "random"},
            "--split=random: {folder} was prepared with user_temporal. Leave it out, or prepare "
            "another folder.",
        ),
        (
            {"confidence_power": 1.0},
            "--confidence_power needs the training rows in memory: it does not go with "
            "--dataset=blocks:FOLDER.",
        ),
        (
            {"recency": 1.0},
            "--recency needs the training rows in memory: it does not go with "
            "--dataset=blocks:FOLDER.",
        ),
        (
            {"exclude_positives": True},
            "--exclude_positives needs the training rows in memory: it does not go with "
            "--dataset=blocks:FOLDER.",
        ),
    ),
)
def test_settings_that_do_not_go_with_a_folder_end_in_one_line(folder, tmp_path, settings, words):
    with pytest.raises(UsageError) as error:
        run.train(
            some_config(
                dataset=f"blocks:{folder}",
                task="ranking",
                workdir=str(tmp_path / "run"),
                **settings,
            )
        )
    assert str(error.value) == words.format(folder=folder)


def test_the_test_rows_of_a_folder_are_those_of_its_run_whatever_split_them(source, tmp_path):
    output, workdir = tmp_path / "blocks", tmp_path / "run"
    prepare.prepare(
        some_config(**source | {"split": "random"}).data,
        output,
        sizes=SIZES,
    )
    settings = {"dataset": f"blocks:{output}", "workdir": str(workdir)}
    result = run.train(
        some_config(model="popularity", task="ranking", ranked_users=20, **settings)
    ).record
    flags = (workdir / "config.flags").read_text()  # as the folder has them
    assert "--split=random\n" in flags and f"--dataset=blocks:{output}\n" in flags
    again = finished.evaluate(workdir, {})
    assert again["test"] == pytest.approx(result["test"], rel=1e-5)
    assert again["slices"]["users"]["warm"]["rows"] == result["slices"]["users"]["warm"]["rows"]
    with pytest.raises(
        UsageError,
        match=r"^--split: the run's rows are on disk, and were divided by scripts/prepare.py. "
        r"Leave it out.$",
    ):
        finished.evaluate(workdir, {"split": "user_temporal"})


def test_a_model_that_needs_no_training_rows_reads_none(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "blocks")
    split = disk.open_folder(copy)
    for file in split.train.files:
        Path(file).unlink()
    for settings in ({"model": "mf"}, {"model": "hybrid", "terms": ("bias", "dot")}):
        parts.make_model(split.train, some_config(**settings))
