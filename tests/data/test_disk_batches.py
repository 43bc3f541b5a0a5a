"""Batches from a prepared folder.

Each row once an epoch, whatever the machines, replicas, restarts and sizes of files.
"""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, replace
from tfrec.data import batches as module
from tfrec.data import disk as disk_module
from tfrec.data import features, to_disk
from tfrec.data.batches import BatchSettings, steps_per_epoch
from tfrec.data.dataset import Dataset
from tfrec.data.disk import open_folder
from tfrec.data.interactions import Split
from tfrec.data.negatives import Negatives
from tfrec.data.targets import fit
from tfrec.errors import UsageError
from tfrec.experiments.config import make_config

THREE = Negatives(3)
CONFIG = make_config(split="random").data


@pytest.fixture(scope="module")
def memory() -> Dataset:
    """200 rows, whose timestamps say of each which it is."""
    data = make_dataset(num_users=20, num_products=15, rows=200, user_features=2)
    context, names, default = features.context(np.arange(200) * 86_400, 200, CONFIG)
    return replace(
        data,
        timestamp=np.arange(200) * 86_400,
        context=context,
        context_names=names,
        default_context=default,
    )


@pytest.fixture(scope="module", params=(1, 3, 40))
def disk(request, memory, tmp_path_factory) -> Split:
    """The same in blocks of 4 rows, so many in a file."""
    sizes = to_disk.Sizes(block=4, shard=request.param)
    return written(memory.split_by(CONFIG), tmp_path_factory.mktemp("blocks"), sizes)


def written(split: Split, folder, sizes: to_disk.Sizes) -> Split:
    pieces = []
    for number, rows in enumerate(split.parts()):
        names = ("user", "product", "rating", "timestamp", "weight")
        columns = {name: getattr(rows, name) for name in names if name in rows.all_columns}
        pieces.append((columns, np.full(len(rows), number, np.int8)))
    manifest = to_disk.write(folder, split.catalog, pieces, CONFIG, sizes)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_folder(folder)


def take(
    count: int, data: Split, task: str = "rating", size: int = 12, how: Negatives = THREE, **where
) -> list[dict]:
    scaling = fit("product_minmax", data.train.stats)
    settings = BatchSettings(size, 5, how if task == "ranking" else None, scaling=scaling)
    batches = data.train.batches_of(settings).dataset(**where)
    return [
        {**batch, "y": y, "weight": weight}
        for batch, y, weight in islice(batches.as_numpy_iterator(), count)
    ]


def steps_of(data: Split, size: int = 12) -> int:
    return steps_per_epoch(len(data.train), size)


def rows_of(batches: list[dict]) -> list[int]:
    return [
        int(day)
        for batch in batches
        for day, weight in zip(batch["day"], batch["weight"])
        if weight
    ]


def test_an_epoch_has_each_training_row_once_with_all_that_belongs_to_it(disk, memory):
    train = memory.split_by(CONFIG).train
    epochs = take(2 * steps_of(disk), disk)
    scaling = fit("product_minmax", train.stats)
    target = dict(zip(train.day, scaling.to_targets(train.rating, train.product)))
    for epoch in (epochs[: steps_of(disk)], epochs[steps_of(disk) :]):
        assert sorted(rows_of(epoch)) == train.day.tolist()
    assert rows_of(epochs[: steps_of(disk)]) != rows_of(epochs[steps_of(disk) :])
    for batch in epochs:
        np.testing.assert_array_equal(batch["user"], memory.interactions.user[batch["day"]])
        np.testing.assert_array_equal(
            batch["features"],
            memory.catalog.features.dense()[memory.interactions.product[batch["day"]]],
        )
        np.testing.assert_array_equal(
            batch["user_features"], memory.catalog.user_features.dense()[batch["user"]]
        )
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
    monkeypatch.setattr(disk_module, "ROWS_AT_ONCE", rows_at_once)
    for name in ("ROWS_AT_ONCE", "ORDERED_AT_ONCE"):
        monkeypatch.setattr(module, name, rows_at_once)
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
    few = make_split(memory, np.arange(rows))
    data = written(few, tmp_path_factory.mktemp("few"), to_disk.Sizes(block=3, shard=2))
    size = lanes * replicas * width
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


def test_what_needs_the_rows_in_memory_is_refused(disk):
    for negatives, power in ((Negatives(3, exclude_positives=True), 0.0), (None, 1.0)):
        with pytest.raises(UsageError, match="needs the training rows in memory"):
            disk.train.batches_of(BatchSettings(12, 5, negatives, power)).dataset()


def test_what_the_training_rows_say_is_the_same_from_disk(disk, memory):
    split = memory.split_by(CONFIG)
    assert len(disk.train) == len(split.train)
    for side in ("user", "product"):
        np.testing.assert_array_equal(disk.train.counts(side), split.train.counts(side))
    assert disk.train.stats.range == split.train.stats.range
    assert disk.train.target_mean == pytest.approx(split.train.target_mean, rel=1e-6)
    for found, expected in zip(disk.seen_products(), split.seen_products()):
        np.testing.assert_array_equal(found, expected)
    assert disk.train.columns().keys() == split.train.columns().keys()
    for name, column in split.train.columns().items():
        np.testing.assert_allclose(disk.train.columns()[name], column, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("how", [None, THREE])
def test_ordered_batches_have_the_same_rows(disk, how):
    made = []
    for ordered in (False, True):
        settings = BatchSettings(12, 5, how, ordered=ordered)
        batches = disk.train.batches_of(settings).dataset().as_numpy_iterator()
        made.append([{**batch, "y": y} for batch, y, _ in islice(batches, steps_of(disk))])
    for plain, ordered in zip(*made, strict=True):
        by_user = np.argsort(plain["user"], kind="stable")  # of equal users the first comes first
        for name, column in plain.items():
            np.testing.assert_array_equal(column[by_user], ordered[name], err_msg=name)
        assert len(ordered["orders"]) == 12 + 2 * 12 * (4 if how else 1)
