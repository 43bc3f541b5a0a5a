import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, recency_of, replace, rows_of
from tests.worlds import write_1m
from tfrec.errors import UsageError
from tfrec.experiments import run
from tfrec.experiments.config import make_config
from tfrec.models import ease, neighbours
from tfrec.models.ease import Ease, regress
from tfrec.system.machine import free_memory

SHAPES = pytest.mark.parametrize(
    "shape", [(12, 9), (9, 12), (7, 40)]
)  # more users than products, and fewer
EMPTY_USER, EMPTY_PRODUCT = 3, 5


def pairs_of(shape, seed=0):
    """(user, product) int [n], a third of all; one user and one product have none."""
    user, product = np.nonzero(np.random.RandomState(seed).rand(*shape) < 1 / 3)
    kept = (user != EMPTY_USER) & (product != EMPTY_PRODUCT)
    return user[kept], product[kept]


def ratings_of(user, product):
    """f32 [n], 0.5 to 4.5."""
    return ((user * 7 + product * 3) % 9 + 1).astype(np.float32) / 2


def fitted(user, product, shape, l2=2.0, power=0.0):
    rows = rows_of(user, product, ratings_of(user, product), shape)
    model = Ease.from_data(rows, ease_l2=l2, confidence_power=power)
    model.fit_closed_form(rows)
    return model


def oracle(user, product, shape, l2=2.0, power=0.0):
    """(X, B) from the whole inverse, in float64."""
    x, y = np.zeros(shape), ratings_of(user, product).astype(float)
    x[user, product] = (y / y.max()) ** power
    inverse = np.linalg.inv(x.T @ x + l2 * np.eye(shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return x, weights


@SHAPES
@pytest.mark.parametrize(
    ("l2", "power"), [(0.1, 0.0), (2.0, 0.0), (2.0, 3.0), (0.1, 1.0), (300.0, 0.5)]
)
def test_equals_its_equations(shape, l2, power):
    user, product = pairs_of(shape)
    x, weights = oracle(user, product, shape, l2, power)
    model = fitted(user, product, shape, l2, power)
    np.testing.assert_allclose(model.between, weights, rtol=1e-5, atol=1e-6 * np.abs(weights).max())
    scores = model.score_all({"user": tf.range(shape[0])})
    np.testing.assert_allclose(
        scores, x @ weights, rtol=1e-5, atol=1e-6 * np.abs(x @ weights).max()
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(2, 30), st.floats(0.5, 1000), st.integers(0, 1000))
def test_no_weights_do_better(num_users, num_products, l2, seed):
    """B is the minimum of a convex loss among those with zeros on the diagonal.

    Its gradient off the diagonal is 0.
    """
    x = np.random.RandomState(seed).rand(num_users, num_products)
    x *= x < 0.4
    row, column = np.nonzero(x)
    weights = regress(row, column, x[row, column], x.shape, l2).numpy().astype(float)
    gradient = x.T @ (x @ weights - x) + l2 * weights
    np.fill_diagonal(gradient, 0)
    np.testing.assert_allclose(gradient, 0, atol=1e-5 * num_users * max(l2, 1))
    np.testing.assert_array_equal(np.diag(weights), 0)


@SHAPES
@pytest.mark.parametrize("floats", [1, 37, 10**7])
def test_every_way_of_scoring_agrees(shape, floats, monkeypatch):
    monkeypatch.setattr(neighbours, "FLOATS_AT_ONCE", floats)
    model, users = fitted(*pairs_of(shape), shape, power=2.0), tf.range(shape[0])
    everything = model.score_all({"user": users}).numpy()
    each = tf.tile(tf.range(shape[1])[None], [shape[0], 1])
    np.testing.assert_allclose(
        model.score_candidates({"user": users}, each), everything, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        model.score_candidates({"user": users}, tf.constant([5, 2])),
        everything[:, [5, 2]],
        rtol=1e-5,
    )
    assert model.score_candidates({"user": users[:0]}, each[:0]).shape == (0, shape[1])


def test_inside_a_graph_with_open_shapes():
    shape = (12, 9)
    model = fitted(*pairs_of(shape), shape)
    spec = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
    graph = tf.function(
        lambda user, products: model.score_candidates({"user": user}, products),
        input_signature=spec,
    )
    everything = model.score_all({"user": tf.constant([7, 4])}).numpy()
    scores = graph(tf.constant([7, 4]), tf.constant([[1, 8], [0, 2]]))
    np.testing.assert_allclose(scores, [everything[0, [1, 8]], everything[1, [0, 2]]], rtol=1e-5)


@SHAPES
@pytest.mark.parametrize("power", [0.0, 2.0])
def test_a_new_user_is_scored_as_a_trained_one(shape, power):
    user, product = pairs_of(shape)
    model = fitted(user, product, shape, power=power)
    mine = product[user == 1]
    products = np.concatenate([mine, mine[:1], [0, 0]])[None].astype(
        np.int32
    )  # one given twice, and padding
    weight = np.array([[1.0] * (len(mine) + 1) + [0.0] * 2], np.float32)
    y = ratings_of(np.ones_like(products), products)
    y[0, len(mine) :] = 0.5  # the product that is given twice counts by its better rating
    expected = model.score_all({"user": tf.constant([1])})
    np.testing.assert_allclose(
        model.fold_in_scores(products, y, weight), expected, rtol=1e-5, atol=1e-6
    )


@SHAPES
def test_users_and_products_without_rows_score_zero(shape):
    scores = fitted(*pairs_of(shape), shape).score_all({"user": tf.range(shape[0])}).numpy()
    np.testing.assert_array_equal(scores[EMPTY_USER], 0)
    np.testing.assert_array_equal(scores[:, EMPTY_PRODUCT], 0)


def test_a_repeated_row_counts_once():
    dataset = make_dataset()
    user, product = dataset.interactions.user, dataset.interactions.product
    shape = dataset.catalog.num_users, dataset.catalog.num_products
    once, twice = fitted(user, product, shape), fitted(np.tile(user, 2), np.tile(product, 2), shape)
    np.testing.assert_array_equal(once.between, twice.between)


def test_the_latest_rows_count_more_when_products_are_scored():
    rows = make_dataset(rows=60).interactions
    plain, recent = (Ease.from_data(rows, ease_l2=3.0, recency=r) for r in (0.0, 4.0))
    for model in (plain, recent):
        model.fit_closed_form(rows)
    np.testing.assert_array_equal(plain.between, recent.between)
    x = recency_of(rows, 4.0)
    scores = recent.score_all({"user": tf.range(rows.num_users)})
    np.testing.assert_allclose(scores, x @ plain.between.numpy(), rtol=1e-4, atol=1e-6)
    untimed = make_split(replace(make_dataset(), timestamp=None)).train
    with pytest.raises(UsageError, match=r"recency: the rows have no timestamps\. Leave it out"):
        Ease.from_data(untimed, recency=1.0)


def test_its_memory_grows_with_the_products_and_the_smaller_side():
    assert ease.memory(10**5, 44_133, 10**5, 44_133) > 4 * 4 * 44_133**2 + 4 * 8 * 44_132**2
    few_users, few_products = (
        ease.memory(500, 10_000, 500, 10_000),
        ease.memory(10**5, 1_000, 10**5, 1_000),
    )
    assert 1.6e9 < few_users < 1.8e9 and few_products < 0.1e9


def test_what_does_not_fit_is_refused_before_training(tmp_path, monkeypatch):
    world = write_1m(tmp_path / "world")
    config = make_config(
        dataset="1m",
        data_dir=str(world),
        task="ranking",
        model="ease",
        workdir=str(tmp_path / "run"),
    )
    monkeypatch.setattr(run, "free_memory", lambda: 1000)
    with pytest.raises(
        UsageError,
        match=r"--model=ease: it would take about 0\.0 GB for the weights between 40 products, "
        r"and 0\.0 GB are free",
    ):
        run.train(config)
    assert not (tmp_path / "run").exists()


def test_the_machines_free_memory_is_a_number_of_bytes():
    assert 2**20 < free_memory() < 2**50
