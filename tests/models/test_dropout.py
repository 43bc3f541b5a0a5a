"""What a training step leaves out."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.models.hybrid import Hybrid
from tfrec.models.ncf import NeuralCF

LEFT_OUT = {NeuralCF: "dropout", Hybrid: "id_dropout"}
kinds = pytest.mark.parametrize("kind", LEFT_OUT, ids=lambda kind: kind.__name__)


def scores(kind, share, training, task="ranking"):
    model = kind.from_data(make_dataset().interactions, task, **{LEFT_OUT[kind]: share})
    random = np.random.RandomState(0)
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape))
    batch = model.data.example(model.reads)
    batch = {name: tf.repeat(column, 64, axis=0) for name, column in batch.items()}
    return model.score(batch, tf.range(3), training).numpy()


@kinds
def test_only_training_leaves_anything_out(kind):
    np.testing.assert_array_equal(scores(kind, 0.5, False), scores(kind, 0.0, False))
    np.testing.assert_array_equal(scores(kind, 0.0, True), scores(kind, 0.0, False))
    for of_product in scores(kind, 0.5, True).T:  # the same user and product in each row
        assert len(np.unique(of_product)) > 1


@kinds
def test_rankings_leave_something_out_by_default_and_ratings_nothing(kind):
    nothing = scores(kind, 0.0, False, "rating")
    np.testing.assert_array_equal(scores(kind, None, True, "rating"), nothing)
    assert len(np.unique(scores(kind, None, True)[:, 0])) > 1


def test_a_hybrid_leaves_out_whole_factors_and_scales_the_others():
    """<x_u, z_p> alone: with a share of a half it is 0, or each side counts twice."""
    whole, some = scores_of_ids()
    assert set(np.unique(np.round(some / whole, 3))) == {0.0, 4.0}


def scores_of_ids():
    made = {"terms": ("dot", "feature_factors"), "similarity": "dot", "embedding_dim": 3}
    ends = []
    for share, training in ((0.0, False), (0.5, True)):
        rows = make_dataset().interactions
        model = Hybrid.from_data(rows, "ranking", id_dropout=share, **made)
        random = np.random.RandomState(0)
        for path, weight in model.named_weights().items():
            if path in ("users/table", "products/table"):
                weight.assign(random.normal(size=weight.shape))
            elif "kernel" in path:
                weight.assign(np.zeros(weight.shape))
        batch = {name: tf.repeat(column, 64, axis=0) for name, column in rows.example().items()}
        ends.append(model.score(batch, tf.range(3), training).numpy())
    return ends


def test_without_features_nobody_is_left_out():
    rows = make_dataset().interactions
    model = Hybrid.from_data(rows, "ranking", terms=("bias", "dot"))
    assert model.id_dropout is None
