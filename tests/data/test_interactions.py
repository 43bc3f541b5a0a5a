"""Interactions in memory, and a Split of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, replace, rows_of
from tfrec.data.interactions import choose_users
from tfrec.data.memory import MemoryInteractions


def pairs(rows) -> list[tuple[int, int]]:
    return list(zip(rows.user.tolist(), rows.product.tolist()))


def test_some_rows_keep_all_that_is_known_of_them(dataset):
    rows = dataset.interactions
    chosen = np.array([7, 3, 50])
    mask = np.isin(np.arange(60), chosen)
    for some, numbers in ((rows.take(chosen), chosen), (rows.take(mask), np.sort(chosen))):
        for name in ("user", "product", "rating", "timestamp", "context", "day", "keys"):
            np.testing.assert_array_equal(getattr(some, name), getattr(rows, name)[numbers])
        assert some.catalog is rows.catalog


def test_without_leaves_out_the_users_and_products_of_others(dataset):
    rows = dataset.interactions
    one, other = rows.take(np.arange(10)), rows.take(np.arange(5, 20))
    left = rows.without(one, other)
    assert pairs(left) == pairs(rows)[20:]
    # an interaction is the same whatever its rating
    changed = replace(dataset, rating=dataset.columns["rating"] + 1).interactions
    assert not len(rows.without(changed))
    # neither the user nor the product alone
    swapped = replace(dataset, user=(dataset.columns["user"] + 1) % 12).interactions
    there = set(pairs(swapped))
    assert pairs(rows.without(swapped)) == [pair for pair in pairs(rows) if pair not in there]


def test_of_users_and_counts_are_the_loop(dataset):
    rows = dataset.interactions
    some = rows.of_users(np.array([4, 11, 0]))
    assert pairs(some) == [pair for pair in pairs(rows) if pair[0] in (0, 4, 11)]
    assert some.users().tolist() == [0, 4, 11]
    for side, size in (("user", 12), ("product", 9)):
        ids = getattr(some, side).tolist()
        assert some.counts(side).tolist() == [ids.count(one) for one in range(size)]


@pytest.mark.parametrize("most", (0, 1, 4, 7, 100))
def test_few_users_are_among_those_of_more(most):
    users = np.array([2, 3, 5, 8, 13, 21, 34])
    chosen = choose_users(users, most, 40)
    assert len(chosen) == (min(most, 7) or 7) and set(chosen) <= set(users)
    assert chosen.tolist() == sorted(chosen)
    if most:
        assert set(choose_users(users, most - 1 or 1, 40)) <= set(chosen)
    # others that are there change nothing of who comes first
    both = set(choose_users(np.arange(40), 20, 40))
    assert both & set(users) == set(choose_users(users, len(both & set(users)), 40))


def test_the_task_says_where_scores_start(dataset):
    rows = dataset.interactions
    assert rows.for_task("rating").target_mean == pytest.approx(rows.rating.mean())
    assert rows.for_task("ranking").target_mean == 0
    assert rows.task == "rating" and len(rows.for_task("ranking")) == len(rows)


def test_an_example_has_the_columns_of_a_batch():
    rows = make_dataset(user_features=2).interactions
    batch, *_ = next(iter(rows.batches(4)))
    example = rows.example()
    assert {n: (c.dtype, c.shape[1:]) for n, c in example.items()} == {
        n: (c.dtype, c.shape[1:]) for n, c in batch.items()
    }


@pytest.mark.parametrize("name", ("user", "product", "rating", "context", "features", "place"))
def test_the_fingerprint_changes_with_rows_features_and_parts(dataset, name):
    parts = np.arange(30), np.arange(30, 40), np.arange(40, 60)
    known = make_split(dataset, *parts)
    assert make_split(dataset, *parts).fingerprint == known.fingerprint
    if name == "place":
        other = make_split(dataset, parts[1], parts[0], parts[2])
    else:
        values = dataset.catalog.features.dense() if name == "features" else dataset.columns[name]
        other = make_split(replace(dataset, **{name: values[::-1].copy()}), *parts)
    assert other.fingerprint != known.fingerprint


def test_cold_weights_without_validation_rows_and_with_cold_ones_alone(dataset):
    users = dataset.columns["user"]
    known, cold = np.flatnonzero(users < 8), np.flatnonzero(users >= 8)
    count = np.bincount(users[known], minlength=12)
    alike = make_split(dataset, known).cold_weights("user")
    np.testing.assert_allclose(alike, (count > 0) / np.count_nonzero(count))
    by_rows = make_split(dataset, known, cold).cold_weights("user")
    np.testing.assert_allclose(by_rows, count / count.sum())


def test_a_split_in_memory_has_all_rows_in_its_sample(dataset):
    split = make_split(dataset, np.arange(30), np.arange(30, 40), np.arange(40, 60))
    assert split.sample(1) is split and split.sample(0) is split


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=30))
def test_the_latest_rows_of_a_user_weigh_more(rows):
    """Whatever order they come in; those of the same time weigh alike."""
    user, time = np.array(rows, np.int64).reshape(-1, 2).T
    made = rows_of(user, np.zeros(len(user), int), np.ones(len(user)), (4, 1))
    made = MemoryInteractions(made.catalog, made.all_columns | {"timestamp": time})
    later = [np.sum((user == u) & (time > t)) for u, t in rows]
    expected = 1 + 2 * np.exp(-np.array(later, float) / 10)
    np.testing.assert_allclose(made.recency_weights(2.0), expected, rtol=1e-6)
