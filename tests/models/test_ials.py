import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, recency_of, rows_of
from tfrec.models import ials
from tfrec.models.ials import ImplicitALS, blocks

SHAPE, DIM = (12, 9), 4
EMPTY_USER, EMPTY_PRODUCT = 3, 5


def pairs_of(seed=0):
    """(user, product) int [n], a third of all; one user and one product have none."""
    user, product = np.nonzero(np.random.RandomState(seed).rand(*SHAPE) < 1 / 3)
    kept = (user != EMPTY_USER) & (product != EMPTY_PRODUCT)
    return user[kept], product[kept]


def ratings_of(user, product):
    """f32 [n], 0.5 to 4.5."""
    return ((user * 7 + product * 3) % 9 + 1).astype(np.float32) / 2


def weights_of(user, product, power):
    """w [n]."""
    y = ratings_of(user, product)
    return (y / y.max()) ** power


def rows_of_pairs(times=1):
    user, product = (np.tile(ids, times) for ids in pairs_of())
    return rows_of(user, product, ratings_of(user, product), SHAPE)


def fitted(rows=None, power=0.0):
    rows = rows or rows_of_pairs()
    model = ImplicitALS.from_data(rows, embedding_dim=DIM, iterations=3, confidence_power=power)
    model.fit_closed_form(rows)
    return model


def unfitted(unobserved, l2):
    settings = {"embedding_dim": DIM, "unobserved_weight": unobserved, "ials_l2": l2}
    return ImplicitALS.from_data(rows_of_pairs(), **settings)


def half(given, x, unobserved, l2):
    """Each row's least loss, given the other side's factors.

    X [rows, others] holds w. In float64.
    """
    solved = []
    for taken in x:
        weight = l2 * (taken.sum() + unobserved * len(taken))
        matrix = (
            unobserved * given.T @ given
            + (given.T * taken) @ given
            + weight * np.eye(given.shape[1])
        )
        solved.append(np.linalg.solve(matrix, given.T @ taken))
    return np.array(solved)


@pytest.mark.parametrize("floats", [1, 40, 10**7])
@pytest.mark.parametrize(
    ("unobserved", "l2", "power"), [(0.1, 0.003, 0.0), (1.0, 0.1, 3.0), (0.01, 0.01, 0.5)]
)
def test_an_iteration_equals_its_equations(unobserved, l2, power, floats, monkeypatch):
    monkeypatch.setattr(ials, "FLOATS_AT_ONCE", floats)
    model = unfitted(unobserved, l2)
    start = np.random.RandomState(1).normal(size=(SHAPE[0], DIM)).astype(np.float32)
    model.users.table.assign(start)
    user, product = pairs_of()
    x, weight = np.zeros(SHAPE), weights_of(user, product, power)
    x[user, product] = weight
    model.solve_both(user, product, weight)
    z = half(start.astype(float), x.T, unobserved, l2)
    np.testing.assert_allclose(model.products.table, z, rtol=1e-5, atol=1e-5 * np.abs(z).max())
    expected = half(z, x, unobserved, l2)
    np.testing.assert_allclose(
        model.users.table, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )
    np.testing.assert_array_equal(model.products.table[EMPTY_PRODUCT], np.zeros(DIM))


def loss(model, x, unobserved, l2):
    user, product = (
        model.users.table.numpy().astype(float),
        model.products.table.numpy().astype(float),
    )
    scores = user @ product.T
    of_user = l2 * (x.sum(axis=1) + unobserved * SHAPE[1]) @ (user**2).sum(axis=1)
    of_product = l2 * (x.sum(axis=0) + unobserved * SHAPE[0]) @ (product**2).sum(axis=1)
    return (x * (scores - 1) ** 2).sum() + unobserved * (scores**2).sum() + of_user + of_product


def test_no_iteration_raises_the_loss():
    unobserved, l2 = 0.1, 0.01
    model = unfitted(unobserved, l2)
    user, product = pairs_of()
    x, weight = np.zeros(SHAPE), weights_of(user, product, 2.0)
    x[user, product] = weight
    losses = [loss(model, x, unobserved, l2)]
    for _ in range(10):
        model.solve_both(user, product, weight)
        losses.append(loss(model, x, unobserved, l2))
    assert losses[1] < losses[0]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(losses))


def test_fitting_again_gives_the_same():
    one, other = fitted(), fitted()
    for a, b in zip(one.weights, other.weights):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert not one.trainable_weights


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_a_new_user_is_scored_as_a_trained_one(power):
    model, (user, product) = fitted(power=power), pairs_of()
    mine = product[user == 1]
    products = np.concatenate([mine, mine[:1], [0, 0]])[None].astype(
        np.int32
    )  # one given twice, and padding
    weight = np.array([[1.0] * (len(mine) + 1) + [0.0] * 2], np.float32)
    y = ratings_of(np.ones_like(products), products)
    y[0, len(mine) :] = 0.5  # the product that is given twice counts by its better rating
    expected = model.score_all({"user": tf.constant([1])})
    np.testing.assert_allclose(
        model.fold_in_scores(products, y, weight), expected, rtol=1e-4, atol=1e-5
    )


def test_users_without_rows_are_the_mean_of_the_others():
    model = fitted()
    x = model.users.table.numpy()
    np.testing.assert_allclose(
        x[EMPTY_USER], np.delete(x, EMPTY_USER, axis=0).mean(axis=0), rtol=1e-5, atol=1e-7
    )


def test_a_repeated_row_counts_once():
    twice = fitted(rows_of_pairs(times=2))
    np.testing.assert_array_equal(twice.products.table, fitted().products.table)


def test_products_are_compared_by_their_factors():
    model = fitted()
    np.testing.assert_array_equal(model.product_embeddings(), model.products.table)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), min_size=1, unique=True),
    st.integers(1, 5),
    st.integers(1, 300),
)
def test_blocks_hold_every_pair_once_in_bounded_memory(pairs, dim, floats):
    of, by = np.array(pairs).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ials, "FLOATS_AT_ONCE", floats)
        made = list(blocks(of, by, (of * 100 + by + 1).astype(np.float32), dim))
    found = [
        (i, o, w)
        for ids, *both in made
        for i, row, ws in zip(ids, *both)
        for o, w in zip(row[ws > 0], ws[ws > 0])
    ]
    assert sorted(found) == sorted((i, o, i * 100 + o + 1) for i, o in pairs)
    for ids, others, weight in made:
        assert others.shape == weight.shape
        assert len(ids) == 1 or others.size * dim <= floats >= len(ids) * dim * dim


def test_the_users_latest_rows_weigh_more_when_they_are_solved_for():
    rows = make_dataset(rows=60).interactions
    rows = rows.joined(rows.take(np.arange(0, 60, 7)))  # of a pair that is there twice the latest
    rows.timestamp[60:] += 500
    settings = {"embedding_dim": DIM, "iterations": 3, "unobserved_weight": 0.1, "ials_l2": 0.01}
    plain, latest = (ImplicitALS.from_data(rows, **settings, recency=r) for r in (0.0, 4.0))
    for model in (plain, latest):
        model.fit_closed_form(rows)
    np.testing.assert_array_equal(plain.products.table, latest.products.table)
    x = recency_of(rows, 4.0)
    expected = half(plain.products.table.numpy().astype(float), x, 0.1, 0.01)
    known = np.unique(rows.user)
    np.testing.assert_allclose(latest.users.table.numpy()[known], expected[known], rtol=1e-3)
