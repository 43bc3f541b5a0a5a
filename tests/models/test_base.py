import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec import models
from tfrec.config import make_config
from tfrec.errors import UsageError
from tfrec.layers import Embedding
from tfrec.models.base import Recommender


class Forgetful(Recommender):
    """Keeps a layer in a plain dict, where a checkpoint would not find it."""

    def __init__(self):
        super().__init__(name="forgetful")
        self.kept = Embedding(3, {"factors": 2}, name="kept")
        self.hidden = {"lost": Embedding(3, {"factors": 2}, name="lost")}


def test_weights_are_named_by_attributes():
    model = models.build(make_dataset().interactions, make_config(model="ncf").model)
    assert {"user/table", "mlp/hidden/kernel", "mean", "head/bias"} <= model.named_weights().keys()


def test_a_weight_that_would_be_lost_is_an_error():
    with pytest.raises(
        RuntimeError, match="forgetful: keep layers as attributes of the model; not found: lost"
    ):
        Forgetful().named_weights()


def test_untrained_rows_become_the_average_one():
    model = models.build(make_dataset().interactions, make_config(model="hybrid").model)
    before = {
        path: table.table.numpy()
        for side in ("user", "product")
        for path, table in model.embeddings(side).items()
    }
    assert before.keys() == {"user", "product"}
    weights = {
        "user": np.arange(12) % 3 > 0,
        "product": (np.arange(9) - 4.0) ** 2,
    }  # all alike, and some more than others
    model.impute_cold_embeddings(weights["user"], weights["product"])
    for side, weight in weights.items():
        for path, table in model.embeddings(side).items():
            after, trained = table.table.numpy(), weight > 0
            np.testing.assert_array_equal(after[trained], before[path][trained])
            mean = np.average(before[path], axis=0, weights=weight)
            np.testing.assert_allclose(
                after[~trained], np.broadcast_to(mean, after[~trained].shape), rtol=1e-5, atol=1e-7
            )


def test_reading_other_users_in_its_scope():
    model = models.build(make_dataset().interactions, make_config(model="ncf").model)
    rows = {
        path: tf.gather(table.table.value, [7, 2])
        for path, table in model.embeddings("user").items()
    }
    with model.override_embeddings(rows):
        inside = model.score_all({"user": tf.constant([0, 1])})
    np.testing.assert_allclose(inside, model.score_all({"user": tf.constant([7, 2])}), rtol=1e-6)


def test_reading_a_table_by_its_parts_in_its_scope():
    model = models.build(make_dataset().interactions, make_config(model="ncf").model)
    batch, table = {"user": tf.constant([7, 2])}, model.product
    scores = model.score_all(batch), model.score_candidates(batch, tf.constant([[1], [3]]))
    parts = dict(zip(table.widths, table.split(tf.identity(table.table.value))))
    table.table.assign(tf.zeros_like(table.table))
    with pytest.raises(ZeroDivisionError), model.override_embeddings({"product": parts}):
        np.testing.assert_array_equal(model.score_all(batch), scores[0])
        np.testing.assert_array_equal(
            model.score_candidates(batch, tf.constant([[1], [3]])), scores[1]
        )
        raise ZeroDivisionError
    assert table.override is None
    assert np.abs(model.score_all(batch) - scores[0]).max() > 1e-4


def test_a_task_that_makes_no_sense_is_refused():
    with pytest.raises(
        UsageError, match="--model=content --task=rating: content only does --task=ranking"
    ):
        models.check(make_config(model="content").model)


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(
        UsageError, match=r"--model=nfc: expected one of popularity, .*\. Did you mean ncf\?"
    ):
        models.check(make_config(model="nfc").model)


def test_a_lookup_has_a_sparse_gradient():
    table = Embedding(5, {"factors": 2, "bias": 1})
    with tf.GradientTape() as tape:
        parts = table(tf.constant([1, 1, 4]))
        total = tf.reduce_sum(parts["factors"]) + tf.reduce_sum(parts["bias"])
    gradient = tape.gradient(total, table.table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.indices.numpy().tolist() == [1, 1, 4]
