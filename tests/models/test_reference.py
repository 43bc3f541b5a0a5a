"""configs/reference.

The shapes and parameter counts of the reference system, layer by layer. U 610, P 9,742, F 20, C 2,
d 50.
"""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import batch_of
from tfrec.data import targets
from tfrec.experiments import flags, parts

CONFIGS = Path(__file__).parents[2] / "configs" / "reference"
U, P, F, C, D = 610, 9742, 20, 2, 50
MF = {"users/table": [U, D], "products/table": [P, D], "head/kernel": [1, 1], "head/bias": [1]}
TOWERS = {
    "users/table": [U, 2 * D],  # the cosine's and the MLP's
    "products/table": [P, 2 * D],
    "mlp/hidden/kernel": [2 * D, D // 2],
    "mlp/hidden/bias": [D // 2],
}
NCF = TOWERS | {"head/kernel": [1 + D // 2, 1], "head/bias": [1]}
HYBRID = TOWERS | {
    "features/table": [P, F],
    "of_features/kernel": [F, F],
    "of_features/bias": [F],
    "of_context/kernel": [C, C],
    "of_context/bias": [C],
    "head/kernel": [1 + D // 2 + F + C, 1],
    "head/bias": [1],
}
CONTENT = {"features/table": [P, F], "weights": [U, F]}


def reference(name):
    return flags.read_flagfile(CONFIGS / f"{name}.flags")


def build(name, movielens):
    settings = reference(name)
    split = movielens.dataset.split_by(settings.data)
    return parts.make_model(split.train, settings), split


@pytest.mark.parametrize(
    ("name", "shapes", "trainable"),
    [
        ("mf", MF, 517_602),
        ("ncf", NCF, 1_037_752),
        ("hybrid", HYBRID, 1_038_200),
        ("content", CONTENT, 0),
    ],
)
def test_shapes_and_parameter_counts(name, shapes, trainable, movielens):
    model, _ = build(name, movielens)
    assert {
        path: weight.shape.as_list() for path, weight in model.named_weights().items()
    } == shapes
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == trainable


def keras_twin(name, weights):
    """The reference model in Keras' functional form, as the tutorial writes it, with the given
    weights.
    """
    layers = tf.keras.layers
    user, product = (layers.Input((1,), dtype=tf.int32) for _ in range(2))
    features, context = layers.Input((F,)), layers.Input((C,))

    def embed(part, ids, side, rows):
        columns = slice(D, None) if part == "mlp" else slice(D)
        table = layers.Embedding(rows, D, weights=[weights[f"{side}s/table"][:, columns]])
        return layers.Flatten()(table(ids))

    def dense(path, activation, inputs):
        kernel, bias = weights[f"{path}/kernel"], weights[f"{path}/bias"]
        layer = layers.Dense(len(bias), activation)
        output = layer(inputs)
        layer.set_weights([kernel, bias])
        return output

    parts = [
        layers.Dot(axes=1, normalize=True)(
            [embed("cosine", user, "user", U), embed("cosine", product, "product", P)]
        )
    ]
    if name != "mf":
        pair = layers.Concatenate()(
            [embed("mlp", user, "user", U), embed("mlp", product, "product", P)]
        )
        parts.append(dense("mlp/hidden", "relu", pair))
    if name == "hybrid":
        parts += [dense("of_features", "relu", features), dense("of_context", "relu", context)]
    output = dense("head", "linear", layers.Concatenate()(parts) if len(parts) > 1 else parts[0])
    return tf.keras.Model([user, product, features, context], output)


@pytest.mark.parametrize("name", ["mf", "ncf", "hybrid"])
def test_scores_equal_the_keras_model(name, movielens):
    model, split = build(name, movielens)
    some = np.arange(len(split.train))[:: len(split.train) // 200]
    batch = batch_of(split.train.take(some))
    twin = keras_twin(
        name, {path: weight.numpy() for path, weight in model.named_weights().items()}
    )
    inputs = [
        batch["user"][:, None],
        batch["product"][:, None],
        batch["features"],
        batch["context"],
    ]
    np.testing.assert_allclose(model(batch), twin(inputs)[:, 0], rtol=1e-5, atol=1e-6)


def test_content_equals_its_formula(movielens):
    """W = R X, rows divided by their sums; Y = W X^T; on the reference's rows and scaling."""
    model, split = build("content", movielens)
    user, product = split.train.user, split.train.product
    scaling = targets.fit("product_minmax", split.train.stats)
    y = scaling.to_targets(split.train.rating, product)
    features = split.catalog.features.dense()
    model.fit_closed_form(split.train)
    ratings = np.zeros((U, P), np.float32)
    ratings[user, product] = y
    weights = ratings @ features
    weights /= weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(
        model.score_all({"user": tf.range(U)}),
        weights @ features.T,
        rtol=1e-4,
        atol=1e-6,
    )


def test_settings_are_the_tutorials():
    for name in ("mf", "ncf", "hybrid"):
        settings = reference(name)
        data = settings.data
        assert (settings.optimizer, settings.loss, settings.learning_rate, settings.l2) == (
            "adam",
            "mae",
            0.001,
            0,
        )
        assert (
            settings.batch_size,
            settings.epochs,
            settings.early_stopping,
            settings.sparse_updates,
        ) == (
            128,
            100,
            0,
            "never",
        )
        assert (data.split, data.test_fraction, data.validation_fraction, data.validation_rule) == (
            "by_product",
            0.2,
            0.3,
            "last_rows",
        )
        assert (settings.target_scaling, settings.evaluation.evaluation_context) == (
            "product_minmax",
            "static",
        )
