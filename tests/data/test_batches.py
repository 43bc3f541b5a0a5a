"""Batches are a pure function of (seed, epoch, step), however they are started and cut.

Every row counts once an epoch.
"""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset
from tests.conftest import replace as of_dataset
from tfrec.data import batches as module
from tfrec.data.batches import BatchSettings, steps_per_epoch
from tfrec.data.negatives import Negatives
from tfrec.data.targets import fit

ROWS = np.arange(3, 50)  # 47 of 60: steps of 10 end in a batch of 7
THREE = Negatives(3)
each_task = pytest.mark.parametrize("task", ["rating", "ranking"])


@pytest.fixture(scope="module")
def dataset():
    return make_dataset(user_features=2)


def rows_of(dataset, rows=ROWS):
    """The training rows."""
    return dataset.interactions.take(rows)


def scaling_of(dataset):
    return fit("product_minmax", rows_of(dataset).stats)


def take(
    count: int,
    dataset,
    task: str = "rating",
    rows=ROWS,
    size: int = 10,
    how: Negatives = THREE,
    seed: int = 5,
    power: float = 0.0,
    **where,
) -> list[dict]:
    """The next `count` batches as flat dicts of arrays, y and weight among them."""
    negatives = how if task == "ranking" else None
    settings = BatchSettings(size, seed, negatives, power, scaling_of(dataset))
    found = rows_of(dataset, rows).batches_of(settings).dataset(**where)
    return [
        {**batch, "y": y, "weight": weight}
        for batch, y, weight in islice(found.as_numpy_iterator(), count)
    ]


def same(found: list[dict], expected: list[dict]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def pairs(batches: list[dict]) -> list[tuple[int, int]]:
    """The (user, product) of the rows that count; no two rows of the data set have the same."""
    return [
        (user, product)
        for b in batches
        for user, product, weight in zip(b["user"], b["product"], b["weight"])
        if weight
    ]


def row_of(dataset) -> dict[tuple[int, int], int]:
    return {
        pair: row
        for row, pair in enumerate(zip(dataset.interactions.user, dataset.interactions.product))
    }


def test_a_row_weighs_more_the_fewer_later_ones_its_user_has(dataset):
    rows = rows_of(dataset)
    settings = BatchSettings(len(ROWS), negatives=THREE, confidence_power=2.0, recency=4.0)
    batch, _, weight = next(rows.batches_of(settings).dataset().as_numpy_iterator())
    found = dict(zip(zip(batch["user"], batch["product"]), weight))
    expected = []
    for at, (user, time) in enumerate(zip(rows.user, rows.timestamp)):
        mine = np.flatnonzero(rows.user == user)
        later = np.sum(rows.timestamp[mine] > time)
        expected.append(rows.rating[at] ** 2 * (1 + 4 * np.exp(-later / 10)))
    weights = [found[pair] for pair in zip(rows.user, rows.product)]
    np.testing.assert_allclose(weights, expected / np.mean(expected), rtol=1e-5)


# A pure function of (seed, epoch, step)


@each_task
@pytest.mark.parametrize("rows_at_once", (1, 20, 8_192))
def test_a_restart_anywhere_goes_on_with_the_same_batches(dataset, task, rows_at_once, monkeypatch):
    for name in ("ROWS_AT_ONCE", "ORDERED_AT_ONCE"):
        monkeypatch.setattr(module, name, rows_at_once)
    steps = steps_per_epoch(len(ROWS), 10)
    whole = take(3 * steps, dataset, task)
    same(take(3 * steps, dataset, task), whole)
    for epoch in (0, 2):
        for step in range(steps + 1):  # start=(0, steps) is (1, 0)
            done = epoch * steps + step
            same(take(3 * steps - done, dataset, task, start=(epoch, step)), whole[done:])


@each_task
def test_epochs_and_seeds_differ(dataset, task):
    epochs = [
        take(5, dataset, task, start=(epoch, 0), seed=seed)
        for epoch in range(3)
        for seed in range(3)
    ]
    assert len({tuple(pairs(batches)) for batches in epochs}) == 9
    if task == "ranking":
        assert len({batch["negatives"].tobytes() for batches in epochs for batch in batches}) == 45


@each_task
@settings(max_examples=6, deadline=None)
@given(
    total=st.sampled_from([1, 2, 3, 4, 6]),
    start=st.tuples(st.integers(0, 2), st.integers(0, 3)),
    data=st.data(),
)
def test_slices_put_together_are_the_global_batch(dataset, task, total, start, data):
    expected = take(5, dataset, task, size=12, start=start)
    count = data.draw(st.sampled_from([count for count in (1, 2, 3, 4, 6) if total % count == 0]))
    workers = [
        take(5 * count, dataset, task, size=12, start=start, slices=(first, count, total))
        for first in range(0, total, count)
    ]
    glued = []
    for step in range(5):
        pieces = [worker[step * count + piece] for worker in workers for piece in range(count)]
        glued.append(
            {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        )
    same(glued, expected)


# Every row once, the padding never


@each_task
@settings(max_examples=10, deadline=None)
@given(
    count=st.integers(1, 47),
    size=st.integers(1, 60),
    seed=st.integers(0, 2**31 - 1),
    epoch=st.integers(0, 1000),
)
def test_each_row_counts_exactly_once_an_epoch(dataset, task, count, size, seed, epoch):
    rows = ROWS[:count]
    batches = take(
        steps_per_epoch(count, size),
        dataset,
        task,
        rows=rows,
        size=size,
        seed=seed,
        start=(epoch, 0),
    )
    assert sorted(row_of(dataset)[pair] for pair in pairs(batches)) == rows.tolist()
    assert all(len(batch["user"]) == size for batch in batches)


@each_task
@pytest.mark.parametrize(("count", "size"), [(47, 10), (47, 60), (1, 8), (40, 10)])
def test_the_last_batch_is_padded_with_its_own_rows_at_weight_0(dataset, task, count, size):
    steps = steps_per_epoch(count, size)
    *full, last = take(steps, dataset, task, rows=ROWS[:count], size=size)
    for batch in full:
        np.testing.assert_array_equal(batch["weight"], np.ones(size))
    real = count - (steps - 1) * size
    np.testing.assert_array_equal(last["weight"] > 0, np.arange(size) < real)
    for name in last.keys() - {"weight"}:
        np.testing.assert_array_equal(last[name], last[name][np.arange(size) % real], err_msg=name)
    anything = np.random.RandomState(0).rand(size)
    np.testing.assert_allclose(
        np.sum(last["weight"] * anything) / size, anything[:real].mean(), rtol=1e-6
    )


# What is in a batch


@each_task
def test_everything_in_a_batch_belongs_to_its_row(dataset, task):
    batches = take(10, dataset, task)
    for batch in batches:
        rows = np.array([row_of(dataset)[pair] for pair in zip(batch["user"], batch["product"])])
        np.testing.assert_array_equal(batch["context"], dataset.interactions.context[rows])
        np.testing.assert_array_equal(
            batch["features"], dataset.catalog.features.dense()[batch["product"]]
        )
        np.testing.assert_array_equal(
            batch["user_features"], dataset.catalog.user_features.dense()[batch["user"]]
        )
        own = rows_of(dataset, rows)
        targets = scaling_of(dataset).to_targets(own.rating, own.product)
        np.testing.assert_array_equal(batch["y"], np.ones(10) if task == "ranking" else targets)
        assert ("negatives" in batch) == (task == "ranking")


@settings(max_examples=5, deadline=None)
@given(
    total=st.sampled_from([1, 2, 3, 4, 6]), start=st.tuples(st.integers(0, 2), st.integers(0, 3))
)
def test_shared_negatives_are_the_same_on_every_replica_and_others_in_every_step(
    dataset, total, start
):
    whole = take(5, dataset, "ranking", size=12, start=start, how=Negatives(shared=100))
    assert all(batch["negatives"].shape == (100,) for batch in whole)
    assert len({batch["negatives"].tobytes() for batch in whole}) == 5
    assert set(np.concatenate([batch["negatives"] for batch in whole])) == set(
        range(dataset.catalog.num_products)
    )
    for first in {0, total - 1}:
        slices = take(
            5,
            dataset,
            "ranking",
            size=12,
            start=start,
            how=Negatives(shared=100),
            slices=(first, 1, total),
        )
        for one, batch in zip(slices, whole):
            np.testing.assert_array_equal(one["negatives"], batch["negatives"])
    together = take(
        5 * total,
        dataset,
        "ranking",
        size=12,
        start=start,
        how=Negatives(shared=100),
        slices=(0, total, total),
    )
    for place, one in enumerate(together):
        np.testing.assert_array_equal(one["negatives"], whole[place // total]["negatives"])


def test_in_batch_negatives_are_the_products_of_the_global_batch(dataset):
    how = Negatives(in_batch=True)
    whole = take(5, dataset, size=12, task="ranking", how=how)
    for batch in whole:
        np.testing.assert_array_equal(batch["negatives"], batch["product"])
        np.testing.assert_array_equal(batch["negative_weight"], batch["weight"] > 0)
    for place, one in enumerate(
        take(10, dataset, size=12, task="ranking", how=how, slices=(0, 2, 2))
    ):
        np.testing.assert_array_equal(one["negatives"], whole[place // 2]["negatives"])
        np.testing.assert_array_equal(one["negative_weight"], whole[place // 2]["negative_weight"])


@pytest.mark.parametrize(
    "how",
    [
        Negatives(5, exclude_positives=True),
        Negatives(shared=20, exclude_positives=True),
        Negatives(in_batch=True, exclude_positives=True),
    ],
)
@pytest.mark.parametrize("power", (0.0, 0.6))
def test_rejected_positives_are_no_negatives(dataset, how, power):
    how = replace(how, power=power)
    pairs_of = set(zip(dataset.interactions.user[ROWS], dataset.interactions.product[ROWS]))
    for batch in take(10, dataset, task="ranking", how=how):
        rejected = []
        for row, user in enumerate(batch["user"]):
            drawn = batch["negatives"] if batch["negatives"].ndim == 1 else batch["negatives"][row]
            rejected.append([(user, product) in pairs_of for product in drawn])
        if how.shared or how.in_batch:
            real = batch["weight"] > 0 if how.in_batch else True
            np.testing.assert_array_equal(batch["negative_weight"] > 0, ~np.array(rejected) & real)
        else:
            assert not np.any(rejected)
    same(
        take(7, dataset, task="ranking", how=how)[3:],
        take(4, dataset, task="ranking", how=how, start=(0, 3)),
    )


@each_task
def test_shapes_are_known_before_a_batch_is(dataset, task):
    negatives = Negatives(3) if task == "ranking" else None
    found = rows_of(dataset).batches(12, 0, negatives).dataset(slices=(0, 1, 2))
    batch, y, weight = found.element_spec
    widths = {
        "user": (),
        "product": (),
        "day": (),
        "context": (2,),
        "features": (3,),
        "user_features": (2,),
    }
    if task == "ranking":
        widths["negatives"] = (3,)
    assert {name: tuple(spec.shape) for name, spec in batch.items()} == {
        name: (6, *width) for name, width in widths.items()
    }
    assert (tuple(y.shape), tuple(weight.shape)) == ((6,), (6,))
    whole = {"user", "product", "day", "negatives"}
    assert all(
        spec.dtype == (tf.int32 if name in whole else tf.float32)
        for name, spec in {**batch, "y": y, "weight": weight}.items()
    )


def test_a_dataset_without_features_and_context():
    data = make_dataset()
    nothing = data.catalog.features.dense()[:, :0], data.interactions.context[:, :0]
    bare = of_dataset(data, features=nothing[0], context=nothing[1])
    batches = take(7, bare)
    same(
        [{name: values for name, values in batch.items() if values.size} for batch in batches],
        [
            {name: values for name, values in batch.items() if name not in ("features", "context")}
            for batch in take(7, data)
        ],
    )


def test_a_dataset_without_user_features_has_none_in_its_batches():
    assert "user_features" not in take(1, make_dataset())[0]


def test_negatives_come_from_all_products_and_differ_between_rows_and_steps(dataset):
    drawn = np.concatenate(
        [
            batch["negatives"][batch["weight"] > 0]
            for batch in take(50, dataset, "ranking", how=Negatives(12))
        ]
    )
    assert set(drawn.ravel()) == set(range(dataset.catalog.num_products))
    assert len(np.unique(drawn, axis=0)) == len(drawn)


@pytest.mark.parametrize(
    ("rows", "size", "steps"), [(1, 1, 1), (10, 10, 1), (11, 10, 2), (47, 10, 5), (3, 100, 1)]
)
def test_steps_per_epoch_counts_the_short_batch(rows, size, steps):
    assert steps_per_epoch(rows, size) == steps


def weights_of(dataset, power: float) -> np.ndarray:
    """What the rows weigh in an epoch of one batch, f32 [rows], in their order."""
    (batch,) = take(1, dataset, size=len(ROWS), power=power)
    weights = dict(zip(zip(batch["user"], batch["product"]), batch["weight"]))
    rows = dataset.interactions.take(ROWS)
    return np.array([weights[pair] for pair in zip(rows.user, rows.product)])


@pytest.mark.parametrize("size", [10, 47])
def test_a_row_s_own_weight_multiplies_that_of_its_batch(dataset, size):
    own, rows = weights_of(dataset, 2.0), dataset.interactions.take(ROWS)
    of_pair = dict(zip(zip(rows.user, rows.product), own))
    steps = steps_per_epoch(len(ROWS), size)
    for batch, plain in zip(
        take(steps, dataset, size=size, power=2.0), take(steps, dataset, size=size)
    ):
        expected = plain["weight"] * [
            of_pair[pair] for pair in zip(batch["user"], batch["product"])
        ]
        np.testing.assert_allclose(batch.pop("weight"), expected, rtol=1e-6)
        plain.pop("weight")
        same([batch], [plain])


@pytest.mark.parametrize("power", [1.0, 3.0])
def test_a_row_weighs_a_power_of_its_rating_of_mean_1(dataset, power):
    own, rating = weights_of(dataset, power), dataset.interactions.rating[ROWS].astype(float)
    np.testing.assert_allclose(own / own[0], (rating / rating[0]) ** power, rtol=1e-5)
    np.testing.assert_allclose(own.mean(), 1, rtol=1e-5)


def test_no_row_weighs_0_as_padding_does(dataset):
    """A batch all of whose rows weighed 0 would have no rows, and L2 divides by their number."""
    rating = np.resize(np.float32([-1, 0, 1]), len(dataset))
    own = weights_of(of_dataset(dataset, rating=rating), 1.0)
    mean = np.mean(rating[ROWS] == 1)
    assert 0 < own.min() < 1e-6 and own.max() == pytest.approx(1 / mean, rel=1e-5)


def columns_of(dataset, how, size: int, ordered: bool, slices=(0, 1, 1)) -> list[dict]:
    """The batches of an epoch as flat dicts of arrays."""
    settings = BatchSettings(size, 5, how, ordered=ordered)
    found = rows_of(dataset).batches_of(settings).dataset(slices=slices).as_numpy_iterator()
    count = steps_per_epoch(len(ROWS), size) * slices[1]
    return [{**batch, "y": y, "weight": weight} for batch, y, weight in islice(found, count)]


@pytest.mark.parametrize("slices", [(0, 1, 1), (0, 2, 2), (1, 1, 2)])
@pytest.mark.parametrize("how", [None, THREE, Negatives(shared=5), Negatives(in_batch=True)])
def test_an_ordered_batch_has_the_same_rows_and_tells_their_order(dataset, how, slices):
    plain = columns_of(dataset, how, 10, False, slices)
    ordered = columns_of(dataset, how, 10, True, slices)
    for one, other in zip(plain, ordered, strict=True):
        assert (np.diff(other["user"]) >= 0).all()
        of_row = [name for name in one if len(one[name]) == len(one["user"])]
        if how and (how.shared or how.in_batch):  # the pool is not of rows
            np.testing.assert_array_equal(one["negatives"], other["negatives"])
            of_row = [name for name in of_row if name not in ("negatives", "negative_weight")]
        rows = [np.column_stack([batch[name] for name in of_row]) for batch in (one, other)]
        in_order = [each[np.lexsort(each.T)] for each in rows]
        np.testing.assert_array_equal(*in_order)
        _, segments = np.unique(other["user"], return_inverse=True)
        rows, products = len(segments), other["product"][:, None]
        users, places, of_products = np.split(
            other["orders"], [rows, (len(other["orders"]) + rows) // 2]
        )
        np.testing.assert_array_equal(users, segments)
        if how and not (how.shared or how.in_batch):
            products = np.concatenate([products, other["negatives"]], axis=1)
        products = products.ravel()
        assert sorted(places) == list(range(products.size))
        products = products[places]
        assert (np.diff(products) >= 0).all()
        _, segments = np.unique(products, return_inverse=True)
        np.testing.assert_array_equal(of_products, segments)
