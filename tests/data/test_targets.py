"""Target scaling, against a loop."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, replace
from tfrec.data.targets import fit, target_range

some = settings(max_examples=30, deadline=None)
worlds = st.builds(make_dataset, rows=st.integers(2, 60), seed=st.integers(0, 99))
scalings = st.sampled_from(["none", "standard", "product_minmax", "global_minmax"])


def training_rows(dataset) -> np.ndarray:
    """About two rows of three."""
    chosen = np.flatnonzero(np.random.RandomState(1).rand(len(dataset)) < 0.67)
    return chosen if len(dataset) > 5 else np.arange(len(dataset))


def scaled(dataset, kind: str, train: np.ndarray) -> SimpleNamespace:
    """All rows and their targets by what the training rows show."""
    rows = dataset.interactions
    scaling = fit(kind, rows.take(train).stats)
    targets = scaling.to_targets(rows.rating, rows.product)
    return SimpleNamespace(rows=rows, scaling=scaling, targets=targets)


@some
@given(worlds, scalings)
def test_ratings_is_the_inverse_of_targets(dataset, kind):
    train = training_rows(dataset)
    found = scaled(dataset, kind, train)
    rows, targets, scaling = found.rows.take(train), found.targets[train], found.scaling
    assert targets.dtype == np.float32
    np.testing.assert_allclose(scaling.to_ratings(targets, rows.product), rows.rating, atol=1e-5)
    assert target_range(scaling, rows.stats) == (targets.min(), targets.max())
    assert rows.scaled_mean(scaling) == pytest.approx(targets.mean())
    if kind.endswith("minmax"):
        assert targets.min() >= 0.5 - 1e-6 and targets.max() <= 1 + 1e-6


@some
@given(worlds)
def test_product_minmax_is_the_loop(dataset):
    train, rows = training_rows(dataset), dataset.interactions
    low, high = rows.rating[train].min(), rows.rating[train].max()
    expected = []
    for row in range(len(dataset)):
        own = [
            rows.rating[other] for other in train if rows.product[other] == rows.product[row]
        ] or [low, high]
        spread = max(own) - min(own)
        expected.append(0.5 + 0.5 * (rows.rating[row] - min(own)) / spread if spread else 0.5)
    np.testing.assert_allclose(
        scaled(dataset, "product_minmax", train).targets, expected, atol=1e-5
    )


@some
@given(worlds)
def test_global_minmax_is_one_line_for_all_products(dataset):
    train, rating = training_rows(dataset), dataset.interactions.rating
    low, high = rating[train].min(), rating[train].max()
    expected = np.full(len(dataset), 0.5)
    if high > low:
        expected = 0.5 + 0.5 * (rating - low) / (high - low)
    found = scaled(dataset, "global_minmax", train).targets
    np.testing.assert_allclose(found, expected, atol=1e-5)


@some
@given(worlds)
def test_standard_has_mean_0_and_deviation_1(dataset):
    train = training_rows(dataset)
    targets = scaled(dataset, "standard", train).targets[train].astype(float)
    np.testing.assert_allclose(targets.mean(), 0, atol=1e-5)
    deviation = dataset.interactions.rating[train].std()
    np.testing.assert_allclose(targets.std(), 1 if deviation else 0, atol=1e-5)


def test_a_constant_column_and_a_product_without_training_rows(dataset):
    dataset = replace(
        dataset,
        product=np.int32([0, 0, 1, 1, 2]),
        user=np.int32([0, 1, 0, 1, 0]),
        rating=np.float32([3, 3, 1, 5, 4]),
        context=np.zeros((5, 2), np.float32),
        timestamp=None,
    )
    rows = scaled(dataset, "product_minmax", np.arange(4))
    np.testing.assert_allclose(rows.targets, [0.5, 0.5, 0.5, 1, 0.875])
    found = rows.scaling.to_ratings(np.float32([0.5, 0.7, 0.75, 1]), np.int32([0, 0, 1, 2]))
    np.testing.assert_allclose(found, [3, 3, 3, 5])


@pytest.mark.parametrize(
    ("kind", "target", "scale"),
    [("none", 3.7, 1), ("standard", 0, 1), ("product_minmax", 0.5, 0), ("global_minmax", 0.5, 0)],
)
def test_equal_ratings(dataset, kind, target, scale):
    equal = replace(dataset, rating=np.full(60, 3.7, np.float32))
    rows = scaled(equal, kind, np.arange(40))
    np.testing.assert_allclose(rows.targets, target, atol=1e-6)
    np.testing.assert_array_equal(rows.scaling.scale, scale)
    back = rows.scaling.to_ratings(rows.targets, rows.rows.product)
    np.testing.assert_allclose(back, 3.7, rtol=1e-6)
    assert target_range(rows.scaling, rows.rows.stats) == pytest.approx((target, target))
    assert rows.rows.scaled_mean(rows.scaling) == pytest.approx(target)


def test_stats_are_those_of_the_ratings(dataset):
    rows = dataset.interactions.take(dataset.interactions.product != 4)
    stats, rating = rows.stats, rows.rating.astype(float)
    assert (stats.mean, stats.deviation) == pytest.approx((rating.mean(), rating.std()))
    assert stats.range == (rating.min(), rating.max())
    assert (stats.low[4], stats.high[4]) == (np.inf, -np.inf)
    for product in {*range(9)} - {4}:
        own = rating[rows.product == product]
        assert (stats.low[product], stats.high[product]) == (own.min(), own.max())


@pytest.mark.parametrize("kind", ["standard", "product_minmax", "global_minmax"])
def test_the_scaling_does_not_look_at_test_rows(dataset, kind):
    train, test = np.arange(40), np.arange(40, 60)
    rating = dataset.interactions.rating.copy()
    rating[test] = 1000
    wild = replace(dataset, rating=rating)
    one, other = (scaled(data, kind, train).scaling for data in (dataset, wild))
    np.testing.assert_array_equal(one.offset, other.offset)
    np.testing.assert_array_equal(one.scale, other.scale)
    assert not np.array_equal(one.scale, scaled(wild, kind, np.arange(60)).scaling.scale)


def test_ratings_takes_any_shape(dataset):
    scaling = scaled(dataset, "product_minmax", np.arange(60)).scaling
    target = np.random.RandomState(0).rand(4, 3).astype(np.float32)
    product = np.random.RandomState(1).randint(0, 9, (4, 3))
    one_by_one = [[scaling.to_ratings(t, p) for t, p in zip(*row)] for row in zip(target, product)]
    np.testing.assert_array_equal(scaling.to_ratings(target, product), one_by_one)
