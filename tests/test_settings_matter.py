"""Each setting does something: a run with another value ends in other weights or metrics."""

import hashlib
import json

import pytest

from tests.conftest import some_config
from tests.worlds import write_1m
from tfrec.experiments import run

BASE = {"epochs": 2, "batch_size": 64, "embedding_dim": 4, "learning_rate": 0.02}
RANKING = {"task": "ranking", "k": (3,)}
CASES = [
    ({}, "seed", 1),
    ({}, "epochs", 3),
    ({}, "batch_size", 128),
    ({}, "learning_rate", 0.05),
    ({}, "l2", 0.5),
    ({}, "target_scaling", "none"),
    ({}, "loss", "mae"),
    ({}, "optimizer", "sgd"),
    ({}, "schedule", "cosine"),
    ({"schedule": "cosine"}, "decay", 0.5),
    ({}, "warmup_steps", 20),
    ({}, "clip_norm", 0.01),
    ({}, "beta1", 0.5),
    ({}, "test_fraction", 0.4),
    ({}, "validation_fraction", 0.3),
    ({}, "validation_rule", "last_rows"),
    ({"split": "random"}, "split_seed", 2),
    ({"split": "kfold"}, "fold", 1),
    ({"model": "mf"}, "embedding_dim", 6),
    ({"model": "mf"}, "biases", False),
    ({"model": "mf"}, "similarity", "cosine"),
    ({"model": "mf"}, "implicit_factors", ("user",)),
    ({"model": "ncf"}, "gmf_dim", 3),
    ({"model": "ncf"}, "mlp_layers", (6, 3)),
    ({"model": "hybrid"}, "terms", ("bias", "dot")),
    ({"model": "hybrid"}, "context", ("hour",)),
    ({"model": "hybrid"}, "year_bins", 5),
    ({}, "full_ranking", True),
    (RANKING, "negatives", 2),
    (RANKING, "negative_power", 0.7),
    (RANKING, "exclude_positives", True),
    (RANKING, "hard_negatives", 20),
    (RANKING, "shared_negatives", 9),
    (RANKING, "confidence_power", 2.0),
    (RANKING | {"loss": "sampled_softmax"}, "temperature", 0.5),
    (RANKING, "relevance_threshold", 4.0),
    (RANKING, "k", (5,)),
    (RANKING | {"split": "cold_product"}, "cold_embeddings", "keep"),
    (RANKING | {"split": "cold_user"}, "fallbacks", False),
    (RANKING | {"model": "ease"}, "ease_l2", 3.0),
    (RANKING, "recency", 0.0),
    (RANKING | {"model": "ease"}, "recency", 5.0),
    (RANKING | {"model": "ials"}, "recency", 5.0),
    ({"model": "bayes_mf"}, "iterations", 1),
    (RANKING | {"model": "ials"}, "ials_l2", 0.5),
    (RANKING | {"model": "ials"}, "unobserved_weight", 0.9),
    (RANKING | {"model": "ials"}, "iterations", 1),
    ({"model": "item_knn"}, "neighbours", 3),
    ({"model": "item_knn"}, "shrinkage", 90.0),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


@pytest.fixture(scope="module")
def hashed(world, tmp_path_factory):
    """Settings -> a hash of the run's metrics; each run once."""
    known = {}

    def of(settings: dict) -> str:
        key = json.dumps(settings, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("run")
            given = {"model": "mf", "dataset": "1m", "data_dir": world, "workdir": str(folder)}
            record = run.train(some_config(**(given | BASE | settings))).record
            shown = {name: record[name] for name in ("test", "history", "slices")}
            known[key] = hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()
        return known[key]

    return of


@pytest.mark.cluster
@pytest.mark.parametrize(("base", "name", "value"), CASES, ids=[name for _, name, _ in CASES])
def test_a_setting_that_is_changed_alone_changes_the_run(hashed, base, name, value):
    assert hashed(base) != hashed(base | {name: value})


@pytest.mark.cluster
def test_the_same_settings_give_the_same_run(world, tmp_path):
    records = []
    for folder in ("a", "b"):
        given = {"model": "mf", "dataset": "1m", "data_dir": world}
        record = run.train(some_config(**(given | BASE), workdir=str(tmp_path / folder))).record
        records.append((record["test"], record["history"]))
    assert records[0] == records[1]
