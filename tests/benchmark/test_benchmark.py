"""scripts/benchmark.py at tiny sizes; no figure is judged here."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import accuracy, keras_models, main, peers, report, serving, world
from benchmarks.suites import SUITES, Settings

from tests.conftest import make_dataset, make_split
from tests.end_to_end.scripts import script
from tfrec.data.memory import in_memory
from tfrec.errors import UsageError
from tfrec.evaluation import evaluate
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.experiments.tables import MODELS

ROOT = Path(__file__).parents[2]
TINY = ("--rows=2000", "--models=mf", "--batch_sizes=512", "--vocabulary=300")


def benchmark(*flags):
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "benchmark.py"), *flags],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.cluster
def test_measured_in_processes_of_their_own(tmp_path):
    output = tmp_path / "results.json"
    done = benchmark("--suite=vocabulary", *TINY, f"--json={output}")
    assert not done.stderr and re.search("^vocabulary$", done.stdout, re.MULTILINE)
    (row,) = json.loads(output.read_text())
    assert (
        set(row) == {"suite", "rows", "tfrec_ms", "keras_ms"}
        and min(row["tfrec_ms"], row["keras_ms"]) > 0
    )


@pytest.mark.parametrize("name", ["train", "pipeline", "evaluate", "serve", "features"])
def test_every_suite_makes_its_rows(name):
    settings = Settings(rows=2000, models=("mf",), batch_sizes=(512,), values=(90,))
    rows = SUITES[name](settings, lambda label, function, *arguments: function(*arguments))
    if name == "train":
        assert [set(row) for row in rows] == [
            {"suite", "model", "batch_size", "tfrec", "keras_fit", "ratio"}
        ]
    else:
        assert rows and all(set(row) == {"suite", "model", "what", "value", "unit"} for row in rows)
        assert {row["unit"] for row in rows} <= {"rows/s", "users/s", "ms", "x"}
    numbers = [value for row in rows for value in row.values() if not isinstance(value, str)]
    assert all(math.isfinite(number) and number > 0 for number in numbers)


@pytest.mark.parametrize(
    ("suite", "settings", "message"),
    [
        ("trian", {}, "Did you mean train?"),
        ("train", {"models": ("nfc",)}, "expected some of mf, ncf, hybrid"),
        ("vocabulary", {"vocabulary": (0,)}, "at least 1"),
        ("train", {"peers": ("tourch",)}, "Did you mean torch?"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(suite, settings, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        main.benchmark((suite,), Settings(**settings), None)


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--peers=surprise: it is not installed here.*pip install scikit-surprise"
    ):
        peers.check(("surprise",))


def test_ease_in_numpy_scores_as_the_model():
    """Each is written without the other; the settings are those that validation rows choose."""
    parts = np.split(np.random.RandomState(0).permutation(90), [50, 70])
    split = make_split(make_dataset(rows=90), *parts)
    chosen, found = accuracy.ranked(split, accuracy.ease, {"l2": (5.0, 50.0)})
    every = split.train.joined(split.validation)
    model = MODELS["ease"].from_data(every, ease_l2=chosen["l2"])
    model.fit_closed_form(every)
    scores = accuracy.ease(accuracy.matrix(every), **chosen)
    users = np.arange(every.num_users)
    np.testing.assert_allclose(scores, model.score_all({"user": users}), rtol=1e-3, atol=1e-5)
    expected = evaluate.Evaluator(model, split, EvaluationSettings()).ranking_metrics()
    assert found == pytest.approx({name: expected[name] for name in accuracy.RANKED})


def test_wrong_usage_ends_in_one_line():
    assert "whole numbers" in script("benchmark", "--batch_sizes=128,many", code=2)


@pytest.mark.parametrize("name", ["mf", "ncf", "hybrid"])
def test_keras_has_the_same_architecture(name):
    rows = world.structured(500, 40, 30)
    ours, theirs = (
        MODELS[name].from_data(rows, embedding_dim=8),
        keras_models.functional(name, rows, 8),
    )
    shapes = [
        sorted(tuple(weight.shape) for weight in model.trainable_weights)
        for model in (ours, theirs)
    ]
    assert sum(map(np.prod, shapes[0])) == sum(map(np.prod, shapes[1]))
    arrays = keras_models.inputs(name, rows)
    assert theirs.predict(arrays, verbose=0).shape == (500, 1)


def test_keras_mf_scores_as_ours():
    rows = world.structured(500, 40, 30)
    ours, theirs = (
        MODELS["mf"].from_data(rows, embedding_dim=8),
        keras_models.functional("mf", rows, 8),
    )
    tables = [layer for layer in theirs.layers if "embedding" in layer.name]
    for table in (
        part
        for side in (ours.users, ours.products)
        for part in np.split(side.table.numpy(), [8], axis=1)
    ):
        same = next(layer for layer in tables if tuple(layer.embeddings.shape) == table.shape)
        same.set_weights([table])
    batch = {"user": rows.user, "product": rows.product}
    np.testing.assert_allclose(
        theirs.predict(keras_models.inputs("mf", rows), verbose=0)[:, 0], ours(batch), rtol=1e-5
    )


@pytest.mark.parametrize("name", ["mf", "ncf"])
def test_numpy_scores_as_the_model(name):
    rows = world.structured(500, 40, 30)
    model = MODELS[name].from_data(rows, embedding_dim=8)
    weights = {path: variable.numpy() for path, variable in model.named_weights().items()}
    users = np.array([3, 1, 20])
    np.testing.assert_allclose(
        serving.SCORES[name](weights, users), model.score_all({"user": users}), rtol=1e-4
    )


def test_numpy_recommends_what_is_new():
    rows = world.structured(500, 40, 30)
    split = serving.divided(rows)
    train, _, test = in_memory(split)
    assert len(train) == 450 and len(test) == 50
    model = MODELS["mf"].from_data(train, embedding_dim=8)
    scores = serving.numpy_recommend("mf", model, split)(np.array([39, 7]))
    for user, found in zip((39, 7), scores):
        every = model.score_all({"user": np.array([user])}).numpy()[0]
        every[train.product[train.user == user]] = -np.inf
        np.testing.assert_allclose(found, np.sort(every)[::-1][: serving.K], rtol=1e-4)


def test_the_world_is_seeded_and_has_taste():
    one, same, other = (world.structured(20_000, seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.num_users == 6_040 and one.num_products == 3_706
    assert one.catalog.features.shape == (3_706, 18)
    busy = np.sort(np.bincount(one.product))[::-1]
    assert busy[:37].sum() > 10 * busy[len(busy) // 2 :][:37].sum()  # a few products have most rows
    assert one.rating.min() >= 0.5 and one.rating.max() <= 5 and 0.5 < one.rating.std() < 1.5


def test_a_table_puts_the_peers_beside_tfrec():
    row = {
        "suite": "train",
        "model": "mf",
        "batch_size": 128,
        "tfrec": 1000.0,
        "keras_fit": 100.0,
        "ratio": 10.0,
        "peers": {"torch": 500.0},
    }
    head, line = report.table([row]).splitlines()
    assert head.split() == [
        "model",
        "batch_size",
        "tfrec",
        "keras_fit",
        "ratio",
        "torch",
        "x",
        "torch",
    ]
    assert line.split() == ["mf", "128", "1,000", "100", "10", "500", "2"]
