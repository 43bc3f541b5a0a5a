"""The synthetic world.

A function of its numbers and the seed, with the noise and the shape that it is said to have.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.data.sources import synthetic
from tfrec.data.sources.synthetic import BLOCK, SIGMA, SyntheticData
from tfrec.errors import UsageError


def columns(world: SyntheticData) -> dict[str, np.ndarray]:
    pieces = list(world.blocks())
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


@pytest.fixture(scope="module")
def drawn() -> tuple[SyntheticData, dict[str, np.ndarray]]:
    world = SyntheticData(5_000, 1_000, 3 * BLOCK + 17)
    return world, columns(world)


def test_a_block_is_a_function_of_the_seed_and_its_number(drawn):
    world, rows = drawn
    again = SyntheticData(world.users, world.products, world.rows).block(
        2
    )  # without those before it
    other = SyntheticData(world.users, world.products, world.rows, seed=1).block(2)
    for name, column in again.items():
        np.testing.assert_array_equal(column, rows[name][2 * BLOCK : 3 * BLOCK])
        assert (
            column.dtype
            == {"user": np.int32, "product": np.int32, "rating": np.float32, "timestamp": np.int64}[
                name
            ]
        )
        assert not np.array_equal(column, other[name])
    assert len(rows["user"]) == world.rows


def test_the_noise_floor_is_that_of_the_true_means(drawn):
    world, rows = drawn
    errors = rows["rating"] - world.mean(rows["user"], rows["product"], rows["timestamp"])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(SIGMA, rel=0.01)
    assert abs(errors.mean()) < 0.01
    assert rows["rating"].std() > 1.05  # there is something to learn


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(20, 90), st.integers(1, 400), st.integers(0, 2**31 - 1))
def test_nobody_takes_a_product_twice(users, products, rows, seed):
    try:
        world = SyntheticData(users, products, rows, seed)
    except UsageError as error:
        assert rows > (products - 15) * users // 2 and str(error).startswith(
            f"--rows={rows}: at most about "
        )
        return
    made = columns(world)
    assert len(set(zip(made["user"].tolist(), made["product"].tolist()))) == rows
    assert (
        made["user"].min() >= 0
        and made["user"].max() < users
        and made["product"].min() >= 0
        and made["product"].max() < products
    )
    assert np.all(np.diff(made["timestamp"]) >= 0)


def test_popularity_activity_time_and_genres(drawn):
    world, rows = drawn
    of_products = np.sort(np.bincount(rows["product"], minlength=world.products))[::-1]
    of_users = np.bincount(rows["user"], minlength=world.users)
    assert 0.3 < of_products[0] / world.users < 0.7  # half of all know the most popular one
    assert 1.6 < of_products[100:200].mean() / of_products[200:400].mean() < 2.4  # Zipf
    mean = world.rows / world.users
    assert 0.2 * mean < of_users.min() < 0.4 * mean and 1.6 * mean < of_users.max() < 1.9 * mean
    weekend = (rows["timestamp"] // 86_400 + 3) % 7 >= 5
    assert weekend.mean() == pytest.approx(2 / 7, abs=0.01)
    assert rows["rating"][weekend].mean() - rows["rating"][~weekend].mean() == pytest.approx(
        0.15, abs=0.02
    )
    early = np.bincount(rows["user"][: world.rows // 2], minlength=world.users)
    assert np.corrcoef(early, of_users)[0, 1] > 0.9  # everybody is there all the time
    assert set(world._genres.sum(axis=1)) == {1, 2, 3} and world._genres.any(axis=0).all()


def test_genres_carry_half_of_the_taste(drawn):
    world, _ = drawn
    taste, genres = (
        world._of_product[:, : synthetic.TASTES],
        world._genres / np.sqrt(world._genres.sum(axis=1, keepdims=True)),
    )
    fitted = genres @ np.linalg.lstsq(genres, taste, rcond=None)[0]
    assert 0.35 < fitted.var() / taste.var() < 0.65
