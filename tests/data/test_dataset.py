"""Target scaling, against a loop."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, replace

some = settings(max_examples=30, deadline=None)
worlds = st.builds(make_dataset, rows=st.integers(2, 60), seed=st.integers(0, 99))
scalings = st.sampled_from(["none", "product_minmax", "global_minmax"])


def training_rows(dataset) -> np.ndarray:
    """About two rows of three."""
    return (
        np.flatnonzero(np.random.RandomState(1).rand(len(dataset)) < 0.67)
        if len(dataset) > 5
        else np.arange(len(dataset))
    )


@some
@given(worlds, scalings)
def test_unscale_is_the_inverse_of_targets(dataset, how):
    rows = training_rows(dataset)
    scaled = dataset.with_scaling(how, rows)
    targets = scaled.targets(rows)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(
        scaled.unscale(targets, scaled.product[rows]), dataset.rating[rows], atol=1e-5
    )
    if how != "none":
        assert targets.min() >= 0.5 - 1e-6 and targets.max() <= 1 + 1e-6


@some
@given(worlds)
def test_product_minmax_is_the_loop(dataset):
    train = training_rows(dataset)
    low, high = dataset.rating[train].min(), dataset.rating[train].max()
    expected = []
    for row in range(len(dataset)):
        own = [
            dataset.rating[other]
            for other in train
            if dataset.product[other] == dataset.product[row]
        ] or [low, high]
        spread = max(own) - min(own)
        expected.append(0.5 + 0.5 * (dataset.rating[row] - min(own)) / spread if spread else 0.5)
    scaled = dataset.with_scaling("product_minmax", train)
    np.testing.assert_allclose(scaled.targets(np.arange(len(dataset))), expected, atol=1e-5)


@some
@given(worlds)
def test_global_minmax_is_one_line_for_all_products(dataset):
    train = training_rows(dataset)
    low, high = dataset.rating[train].min(), dataset.rating[train].max()
    targets = dataset.with_scaling("global_minmax", train).targets(np.arange(len(dataset)))
    expected = (
        0.5 + 0.5 * (dataset.rating - low) / (high - low)
        if high > low
        else np.full(len(dataset), 0.5)
    )
    np.testing.assert_allclose(targets, expected, atol=1e-5)


def test_a_constant_column_and_a_product_without_training_rows(dataset):
    dataset = replace(
        dataset,
        product=np.int32([0, 0, 1, 1, 2]),
        user=np.int32([0, 1, 0, 1, 0]),
        rating=np.float32([3, 3, 1, 5, 4]),
    )
    scaled = dataset.with_scaling("product_minmax", np.arange(4))
    np.testing.assert_allclose(scaled.targets(np.arange(5)), [0.5, 0.5, 0.5, 1, 0.875])
    np.testing.assert_allclose(
        scaled.unscale(np.float32([0.5, 0.7, 0.75, 1]), np.int32([0, 0, 1, 2])), [3, 3, 3, 5]
    )


@pytest.mark.parametrize("how", ["product_minmax", "global_minmax"])
def test_the_scaler_does_not_look_at_test_rows(dataset, how):
    train, test = np.arange(40), np.arange(40, 60)
    wild = dataset.rating.copy()
    wild[test] = 1000
    one, other = (
        dataset.with_scaling(how, train),
        replace(dataset, rating=wild).with_scaling(how, train),
    )
    np.testing.assert_array_equal(one.offset, other.offset)
    np.testing.assert_array_equal(one.scale, other.scale)
    assert not np.array_equal(
        one.scale, replace(dataset, rating=wild).with_scaling(how, np.arange(60)).scale
    )


def test_scaling_leaves_the_dataset_it_was_asked_of_alone(dataset):
    before = dataset.scale.copy(), dataset.offset.copy()
    dataset.with_scaling("product_minmax", np.arange(60))
    np.testing.assert_array_equal((dataset.scale, dataset.offset), before)
    np.testing.assert_array_equal(
        dataset.with_scaling("none", np.arange(60)).targets(np.arange(60)), dataset.rating
    )


def test_unscale_takes_any_shape(dataset):
    scaled = dataset.with_scaling("product_minmax", np.arange(60))
    target, product = (
        np.random.RandomState(0).rand(4, 3).astype(np.float32),
        np.random.RandomState(1).randint(0, 9, (4, 3)),
    )
    one_by_one = [[scaled.unscale(t, p) for t, p in zip(*row)] for row in zip(target, product)]
    np.testing.assert_array_equal(scaled.unscale(target, product), one_by_one)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_worth_is_a_power_of_the_rating_of_mean_1(dataset, power):
    rows = np.arange(5, 50)
    worth, rating = dataset.worth(rows, power), dataset.rating[rows].astype(float)
    np.testing.assert_allclose(worth / worth[0], (rating / rating[0]) ** power, rtol=1e-5)
    np.testing.assert_allclose(worth.mean(), 1, rtol=1e-5)


def test_worth_is_never_0_as_padding_is(dataset):
    """A batch all of whose rows weighed 0 would have no rows, and L2 divides by their number."""
    thumbs = replace(dataset, rating=np.resize(np.float32([-1, 0, 1]), len(dataset)))
    worth = thumbs.worth(np.arange(len(dataset)), 1.0)
    assert 0 < worth.min() < 1e-6 and worth.max() == pytest.approx(3, rel=0.05)
