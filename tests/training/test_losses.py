import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.config import make_config
from tfrec.data import pipeline
from tfrec.models.mf import MatrixFactorization
from tfrec.training import losses

KERAS = {"mse": tf.keras.losses.MeanSquaredError, "mae": tf.keras.losses.MeanAbsoluteError, "huber": tf.keras.losses.Huber}
NUMPY = {
    "mse": lambda e: e**2,
    "mae": np.abs,
    "huber": lambda e: np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5),
}
BATCH = 25
LOSSES = {"rating": ["mse", "mae", "huber"], "ranking": ["sigmoid"]}
EVERY = [(name, task, shared) for task, names in LOSSES.items() for name in names for shared in ((0, 6) if task == "ranking" else (0,))]


def make_loss(name: str, negatives: int = 3) -> losses.Loss:
    return losses.make(make_config(loss=name, negatives=negatives, task="rating" if name in LOSSES["rating"] else "ranking").train)


def make_world(task: str, shared: int = 0):
    """(model with random weights, batch, y, weight): the last batch of an epoch, its end padded with rows of weight 0."""
    data = make_dataset()
    random = np.random.RandomState(0)
    model = MatrixFactorization(data.num_users, data.num_products, 4)
    for variable in model.weights:
        variable.assign(random.normal(size=variable.shape))
    batches = pipeline.training_batches(data, np.arange(60), task, BATCH, 3, seed=0, start=(0, 2), num_shared=shared)
    batch, y, weight = next(iter(batches))
    assert 0 < np.count_nonzero(weight == 0) < BATCH
    return model, batch, y, weight


@pytest.mark.parametrize("name", KERAS)
def test_rating_losses_equal_keras_and_their_formulas(name):
    model, batch, y, _ = make_world("rating")
    loss, predicted = make_loss(name)(model, batch, y), model(batch)
    error = (predicted - y).numpy()
    assert (np.abs(error) < 1).any() and (np.abs(error) > 1).any()
    np.testing.assert_allclose(loss, NUMPY[name](error), rtol=1e-5)
    np.testing.assert_allclose(loss, KERAS[name](reduction="none")(y[:, None], predicted[:, None]), rtol=1e-5)


def test_sigmoid_equals_keras_over_the_product_and_its_negatives():
    model, batch, y, _ = make_world("ranking")
    everything = model.score_products(batch).numpy()
    products = np.c_[batch["product"], batch["negatives"]]
    logits = np.take_along_axis(everything, products, axis=1)
    labels = np.zeros_like(logits)
    labels[:, 0] = y
    expected = tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction="none")(labels, logits)
    loss = make_loss("sigmoid")(model, batch, y)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    cross_entropy = np.log1p(np.exp(-logits[:, 0])) + np.log1p(np.exp(logits[:, 1:])).sum(axis=1)
    np.testing.assert_allclose(loss, cross_entropy / 4, rtol=1e-5)


def test_a_shared_pool_weighs_as_much_as_the_negatives_of_ones_own():
    """The pool of every product is the expectation of any number of uniform draws; few rows of the product table have a gradient."""
    model, batch, y, _ = make_world("ranking", shared=6)
    everything = model.score_products(batch).numpy()
    positive = np.log1p(np.exp(-everything[np.arange(BATCH), batch["product"]]))
    pool = np.log1p(np.exp(everything[:, batch["negatives"]]))
    np.testing.assert_allclose(make_loss("sigmoid")(model, batch, y), (positive + 3 * pool.mean(axis=1)) / 4, rtol=1e-5)
    whole = batch | {"negatives": tf.range(9)}
    drawn = [batch | {"negatives": tf.random.stateless_uniform([BATCH, 1000], [seed, 0], maxval=9, dtype=tf.int32)} for seed in range(5)]
    expected = np.mean([make_loss("sigmoid", 1000)(model, one, y) for one in drawn], axis=0)
    np.testing.assert_allclose(make_loss("sigmoid", 1000)(model, whole, y), expected, rtol=0.05)
    with tf.GradientTape() as tape:
        loss = make_loss("sigmoid")(model, batch, y)
    assert tape.gradient(loss, model.product.table.value).indices.shape == [BATCH + 6]


def test_sigmoid_stays_finite_at_large_logits():
    model, batch, y, _ = make_world("ranking")
    model.product.table[:, -1].assign(np.linspace(-1e4, 1e4, 9))
    loss = make_loss("sigmoid")(model, batch, y)
    assert np.isfinite(loss).all() and np.max(loss) > 1000


def gradients(name: str, model, batch, y, weight) -> dict[str, np.ndarray]:
    variables = {path: variable for path, variable in model.named_weights().items() if variable.trainable}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weight * make_loss(name)(model, batch, y))
    return {path: tf.convert_to_tensor(gradient).numpy() for path, gradient in tape.gradient(loss, variables).items()}


@pytest.mark.parametrize(("name", "task", "shared"), EVERY)
def test_rows_of_weight_0_have_no_gradient(name, task, shared):
    model, batch, y, weight = make_world(task, shared)
    whole = gradients(name, model, batch, y, weight)
    real = np.flatnonzero(weight)
    kept = gradients(
        name,
        model,
        {key: column if key == "negatives" and shared else tf.gather(column, real) for key, column in batch.items()},
        tf.gather(y, real),
        weight.numpy()[real],
    )
    for path, gradient in whole.items():
        np.testing.assert_allclose(gradient, kept[path], atol=1e-5, err_msg=path)
        assert np.abs(gradient).max() > 0
