"""Sampled negatives: their law, and that nothing but the seed decides."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tfrec.data import negatives


def test_they_are_products_and_uniform():
    drawn = negatives.uniform([4000, 25], 50, [3, 4]).numpy()
    assert drawn.dtype == np.int32 and drawn.shape == (4000, 25)
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=50)).pvalue > 0.001
    assert len(np.bincount(drawn.ravel())) == 50


@pytest.mark.parametrize("other", [[4, 3], [3, 5], [0, 4]])
def test_the_seed_decides(other):
    first = negatives.uniform([6, 5], 1000, [3, 4])
    np.testing.assert_array_equal(first, negatives.uniform([6, 5], 1000, [3, 4]))
    assert not np.array_equal(first, negatives.uniform([6, 5], 1000, other))


def world(num_users: int, num_products: int, rows: int, seed: int):
    """user, product int32 [rows], with doubles, and the counts of the products."""
    random = np.random.RandomState(seed)
    user, product = (
        random.randint(0, num_users, rows).astype(np.int32),
        (num_products * random.rand(rows) ** 2).astype(np.int32),
    )
    return user, product, np.bincount(product, minlength=num_products)


@pytest.mark.parametrize("power", (0.0, 0.5, 1.0))
def test_they_are_drawn_by_popularity_to_a_power(power):
    _, _, counts = world(5, 30, 400, 0)
    counts[7] = 0
    law = (
        counts**power * (counts > 0) / np.sum(counts**power * (counts > 0))
    )  # who has no rows is never drawn
    mass = negatives.sampling_weights(counts, power)
    np.testing.assert_allclose(mass / mass.sum(), law, rtol=1e-6)
    drawn = negatives.Sampler(mass).draw([2000, 20], [3, 4]).numpy()
    assert drawn.dtype == np.int32 and drawn.shape == (2000, 20)
    found = np.bincount(drawn.ravel(), minlength=30)
    assert stats.chisquare(found[law > 0], law[law > 0] * 40_000).pvalue > 0.001
    assert not found[law == 0].any()


def test_a_rare_product_keeps_a_chance():
    assert negatives.sampling_weights(np.array([10**9, 1, 0]), 2.0).tolist() == [2**32, 1, 0]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(2, 12),
    st.integers(1, 40),
    st.sampled_from([0.0, 0.7]),
    st.integers(0, 99),
)
def test_who_has_products_draws_from_the_others_by_the_same_law(
    num_users, num_products, rows, power, seed
):
    """Against numpy, number by number.

    The inverse of the distribution in which his products have no mass.
    """
    user, product, counts = world(num_users, num_products, rows, seed)
    mass = negatives.sampling_weights(counts, power)
    own = negatives.PositivesIndex(user, product, num_users, mass)
    numbers = np.random.RandomState(seed).rand(num_users, 50)
    drawn = own.sample_unseen(
        negatives.Sampler(mass), tf.range(num_users), tf.constant(numbers)
    ).numpy()
    for one in range(num_users):
        left = np.where(np.isin(np.arange(num_products), product[user == one]), 0, mass)
        if left.sum():
            expected = np.searchsorted(
                np.cumsum(left), np.floor(numbers[one] * left.sum()), side="right"
            )
            np.testing.assert_array_equal(drawn[one], expected)
            assert not np.isin(drawn[one], product[user == one]).any()
    every = tf.tile(tf.range(num_products)[None], [num_users, 1])
    expected = [
        [p in product[user == one] for p in range(num_products)] for one in range(num_users)
    ]
    np.testing.assert_array_equal(own.contains(tf.range(num_users), every), expected)
    own.bits = None  # as where there are too many pairs for bits
    np.testing.assert_array_equal(own.contains(tf.range(num_users), every), expected)
