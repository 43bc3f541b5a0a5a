"""Batches from a prepared folder.

Each row once an epoch, whatever the machines, replicas, restarts and sizes of files.
"""

import dataclasses
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset
from tfrec.config import make_config
from tfrec.data import blocks, features, from_disk, pipeline, to_disk, trained
from tfrec.data.dataset import Dataset
from tfrec.data.negatives import Negatives
from tfrec.data.splits import split

THREE = Negatives(3)
CONFIG = make_config(split="random", target_scaling="product_minmax").data


@pytest.fixture(scope="module")
def memory() -> Dataset:
    """200 rows, whose timestamps say of each which it is."""
    data = make_dataset(num_users=20, num_products=15, rows=200, user_features=2)
    context, names, default = features.context(np.arange(200) * 86_400, 200, CONFIG)
    return dataclasses.replace(
        data,
        timestamp=np.arange(200) * 86_400,
        context=context,
        context_names=names,
        default_context=default,
    )


@pytest.fixture(scope="module", params=(1, 3, 40))
def disk(request, memory, tmp_path_factory) -> Dataset:
    """The same in blocks of 4 rows, so many in a file."""
    return written(memory, tmp_path_factory.mktemp("blocks"), shard=request.param)


def written(memory: Dataset, folder, shard: int) -> Dataset:
    rows, part = split(memory, CONFIG), np.zeros(len(memory), np.int8)
    part[rows.validation], part[rows.test] = 1, 2
    columns = {name: getattr(memory, name) for name in ("user", "product", "rating", "timestamp")}
    to_disk.write(folder, memory, [(columns, part)], CONFIG, block=4, shard=shard)
    return blocks.open(folder)


def take(
    count: int, data: Dataset, task: str = "rating", size: int = 12, how: Negatives = THREE, **where
) -> list[dict]:
    batches = from_disk.training_batches(data, np.zeros(0, int), task, size, how, 5, **where)
    return [
        {**batch, "y": y, "weight": weight}
        for batch, y, weight in islice(batches.as_numpy_iterator(), count)
    ]


def steps_of(data: Dataset, size: int = 12) -> int:
    return pipeline.steps_per_epoch(data.stored.size(), size)


def rows_of(batches: list[dict]) -> list[int]:
    return [
        int(day)
        for batch in batches
        for day, weight in zip(batch["day"], batch["weight"])
        if weight
    ]


def test_an_epoch_has_each_training_row_once_with_all_that_belongs_to_it(disk, memory):
    rows = split(memory, CONFIG).train
    epochs = take(2 * steps_of(disk), disk)
    scaled = memory.with_scaling("product_minmax", rows)
    target = dict(zip(rows, scaled.targets(rows)))
    for epoch in (epochs[: steps_of(disk)], epochs[steps_of(disk) :]):
        assert sorted(rows_of(epoch)) == rows.tolist()
    assert rows_of(epochs[: steps_of(disk)]) != rows_of(epochs[steps_of(disk) :])
    for batch in epochs:
        np.testing.assert_array_equal(batch["user"], memory.user[batch["day"]])
        np.testing.assert_array_equal(
            batch["features"], memory.features[memory.product[batch["day"]]]
        )
        np.testing.assert_array_equal(batch["user_features"], memory.user_features[batch["user"]])
        np.testing.assert_allclose(batch["y"], [target[day] for day in batch["day"]], rtol=1e-6)
        assert batch["weight"].mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "task, how",
    (("rating", Negatives()), ("ranking", THREE), ("ranking", Negatives(in_batch=True, power=1.0))),
)
@pytest.mark.parametrize("rows_at_once", (5, 8_192))
def test_a_restart_anywhere_goes_on_with_the_same_batches(
    disk, task, how, rows_at_once, monkeypatch
):
    monkeypatch.setattr(from_disk, "ROWS_AT_ONCE", rows_at_once)
    steps = steps_of(disk)
    whole = take(2 * steps, disk, task, how=how)
    for epoch, step in ((0, steps - 1), (1, 4)):
        begin = epoch * steps + step
        for one, other in zip(
            take(2 * steps - begin, disk, task, how=how, start=(epoch, step)),
            whole[begin:],
            strict=True,
        ):
            assert one.keys() == other.keys()
            for name in one:
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@example(rows=2, lanes=4, replicas=2, width=1)
@given(
    rows=st.integers(2, 60),
    lanes=st.integers(1, 4),
    replicas=st.integers(1, 2),
    width=st.integers(1, 3),
)
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_machines_and_replicas_share_an_epoch_out(
    memory, tmp_path_factory, rows, lanes, replicas, width
):
    few = dataclasses.replace(
        memory,
        **{
            name: getattr(memory, name)[:rows]
            for name in ("user", "product", "rating", "timestamp", "context")
        },
    )
    columns = {name: getattr(few, name) for name in ("user", "product", "rating", "timestamp")}
    folder = tmp_path_factory.mktemp("few")
    to_disk.write(
        folder,
        few,
        [(columns, np.zeros(rows, np.int8))],
        make_config(split="random").data,
        block=3,
        shard=2,
    )
    data, size = blocks.open(folder), lanes * replicas * width
    steps, total = steps_of(data, size), lanes * replicas
    parts = [
        take(steps * replicas, data, size=size, slices=(lane * replicas, replicas, total))
        for lane in range(lanes)
    ]
    assert sorted(row for part in parts for row in rows_of(part)) == list(range(rows))
    for step in range(steps):
        weights = np.concatenate(
            [
                batch["weight"]
                for part in parts
                for batch in part[step * replicas : (step + 1) * replicas]
            ]
        )
        assert weights.sum() == pytest.approx(
            size
        )  # the loss is the mean over the global batch, wherever its rows are


def test_replicas_of_one_machine_cut_the_same_global_batch(disk):
    whole = take(3, disk, "ranking")
    halves = take(6, disk, "ranking", slices=(0, 2, 2))
    for at, batch in enumerate(whole):
        for name in batch:
            np.testing.assert_array_equal(
                batch[name],
                np.concatenate([halves[2 * at][name], halves[2 * at + 1][name]]),
                err_msg=name,
            )


def test_what_the_training_rows_say_is_the_same_from_disk(disk, memory):
    rows = split(memory, CONFIG).train
    memory, none = memory.with_scaling("product_minmax", rows), np.zeros(0, int)
    assert trained.size(disk, none) == len(rows)
    for side in ("user", "product"):
        np.testing.assert_array_equal(
            trained.counts(disk, none, side), trained.counts(memory, rows, side)
        )
    assert trained.rating_range(disk, none) == trained.rating_range(memory, rows)
    np.testing.assert_allclose(
        trained.target_range(disk, none), trained.target_range(memory, rows), rtol=1e-6
    )
    assert trained.mean_target(disk, none) == pytest.approx(
        trained.mean_target(memory, rows), rel=1e-6
    )
    for name, column in trained.columns(memory, rows).items():
        np.testing.assert_allclose(
            trained.columns(disk, none)[name], column, rtol=1e-6, err_msg=name
        )
    of_disk, of_memory = (
        trained.seen(disk, none, none),
        trained.seen(memory, rows, split(memory, CONFIG).validation),
    )
    np.testing.assert_array_equal(of_disk[1], of_memory[1])
    np.testing.assert_array_equal(of_disk[0], of_memory[0])
