"""Implicit factors and day biases against numpy; finalizing changes no score."""

import numpy as np
import pytest
import tensorflow as tf

from tests import conftest
from tests.conftest import batch_of, rows_of
from tfrec.experiments import parts
from tfrec.experiments.config import make_config
from tfrec.layers import ImplicitFactors, UserDayBias

ROWS = np.arange(0, 60, 2)  # of training; users and products without any are among the others
VARIANTS = [
    {"model": "mf", "implicit_factors": ("user", "product")},
    {
        "model": "hybrid",
        "terms": (
            "bias",
            "user_day_bias",
            "feature_factors",
            "context_factors",
            "user_history",
            "product_history",
        ),
    },
]


def make_rows():
    """Rows that lie on several days."""
    data = conftest.make_dataset()
    days = data.interactions.timestamp // 10
    return conftest.replace(data, timestamp=days * 86_400).interactions


def random_weights(model):
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(tf.random.stateless_normal(weight.shape, [i, 0]))
    return model


@pytest.mark.parametrize("most", [2, 100])
def test_sums_are_of_the_partners_in_training_rows(most):
    data = make_rows()
    owner, partner = data.user[ROWS], data.product[ROWS]
    shape = data.num_users + 1, data.num_products
    rows = rows_of(owner, partner, data.rating[ROWS], shape)
    layer = random_weights(ImplicitFactors(rows, "user", 4, most))
    everything, table = layer(None).numpy(), layer.table.numpy()
    assert everything.shape == (data.num_users + 1, 4)
    for i, total in enumerate(everything):
        mine = partner[owner == i]
        if len(mine) <= most:
            np.testing.assert_allclose(
                total, table[mine].sum(axis=0) / np.sqrt(max(len(mine), 1)), rtol=1e-5, atol=1e-6
            )
        else:
            pairs = [(table[a] + table[b]) / np.sqrt(2) for a in mine for b in mine if a < b]
            assert min(np.abs(total - pair).max() for pair in pairs) < 1e-5
    ids = tf.constant([[data.num_users, 3, 0], [3, 5, 11]])
    np.testing.assert_allclose(layer(ids), everything[ids.numpy()], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", VARIANTS, ids=["mf", "hybrid"])
def test_a_training_row_does_not_find_itself(settings):
    """Scored in training it has the score of a model that was made without it."""
    data, config = make_rows(), make_config(embedding_dim=4, **settings)
    model, less = (
        random_weights(parts.make_model(data.take(rows), config)) for rows in (ROWS, ROWS[1:])
    )
    less.mean.assign(model.mean)
    batch = batch_of(data.take(ROWS[:1]))
    scores = [
        float(score) for score in (model(batch, training=True)[0], less(batch)[0], model(batch)[0])
    ]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)
    assert scores[0] != pytest.approx(scores[2], rel=1e-2)
    had = set(data.product[ROWS][data.user[ROWS] == data.user[ROWS[0]]])
    candidates = tf.constant(
        [[data.product[ROWS[0]], *sorted(set(range(data.num_products)) - had)]]
    )  # a positive and its negatives
    expected = less.score_candidates(batch, candidates)
    np.testing.assert_allclose(
        model.score_candidates(batch, candidates, training=True), expected, rtol=1e-4
    )
    shared = model.score_candidates(batch, candidates[0, 1:], training=True)
    np.testing.assert_allclose(shared, expected[:, 1:], rtol=1e-4)
    assert not np.allclose(model.score_candidates(batch, candidates), expected, rtol=1e-2)


def test_padding_touches_no_row():
    layer = ImplicitFactors(rows_of([0, 1, 1, 1], [0, 1, 2, 3], [1] * 4, (2, 5)), "user", 3)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.constant([0])))
    assert set(tape.gradient(loss, layer.table.value).indices.numpy()) == {0}


def test_a_session_is_a_users_day_in_training_rows():
    rows = rows_of([2, 0, 2, 2], [0, 1, 2, 3], [1] * 4, (3, 4))
    rows.timestamp = np.array([7, 7, 7, 9]) * 86_400
    layer = random_weights(UserDayBias(rows))
    bias = layer.bias.numpy()
    user, day = tf.constant([0, 2, 2, 1, 2, 9]), tf.constant([7, 7, 9, 7, 8, 9])
    np.testing.assert_array_equal(layer(user, day), [bias[0], bias[1], bias[2], 0, 0, 0])


@pytest.mark.parametrize("settings", VARIANTS, ids=["mf", "hybrid"])
def test_scores_follow_the_equation(settings):
    data = make_rows()
    model = random_weights(
        parts.make_model(data.take(ROWS), make_config(embedding_dim=4, **settings))
    )
    batch = batch_of(data)
    w = {path: weight.numpy() for path, weight in model.named_weights().items()}
    dot = slice(0, 4) if settings["model"] == "mf" else slice(1, 5)
    x, z, (bu, bp) = (
        w["users/table"][:, dot].copy(),
        w["products/table"][:, dot].copy(),
        (w[f"{s}/table"] for s in ("users", "products")),
    )
    column = 4 if settings["model"] == "mf" else 0
    for row in ROWS:
        u, p = data.user[row], data.product[row]
        x[u] += w["user_history/table"][p] / np.sqrt(np.sum(data.user[ROWS] == u))
        z[p] += w["product_history/table"][u] / np.sqrt(np.sum(data.product[ROWS] == p))
    expected = w["mean"] + bu[data.user, column] + bp[data.product, column]
    x = x[data.user]
    if settings["model"] == "hybrid":
        z += data.catalog.features.dense() @ w["of_features/kernel"]
        x += data.context @ w["context_factors"]
        keys, day = sorted({(data.user[row], data.day[row]) for row in ROWS}), data.day
        expected += [
            w["user_day_bias/bias"][keys.index((u, t))] if (u, t) in keys else 0
            for u, t in zip(data.user, day)
        ]
    expected += np.sum(x * z[data.product], axis=1)
    np.testing.assert_allclose(model(batch), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", VARIANTS, ids=["mf", "hybrid"])
def test_finalizing_changes_no_score(settings):
    data = make_rows()
    model = random_weights(
        parts.make_model(data.take(ROWS), make_config(embedding_dim=4, **settings))
    )
    batch = batch_of(data)
    before = model.score_all(batch).numpy(), model(batch).numpy()
    model.finalize()
    model.finalize()
    assert "product_history/table" in model.named_weights()
    for scores, old in zip((model.score_all(batch), model(batch)), before):
        np.testing.assert_allclose(scores, old, rtol=1e-4, atol=1e-4)
