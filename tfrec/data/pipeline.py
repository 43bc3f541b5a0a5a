"""Dataset + rows -> batches.

The global batch of (seed, epoch, step) is a pure function of these three: one stateless permutation an epoch, then slices of it.
Replicas slice the global batch, so its content does not depend on how many there are.

Rows on disk (dataset.stored) are shuffled by shards, and within each few of them that follow each other; every machine of a cluster reads
its own part of this order, of which it makes its slices, so there the global batch depends on the number of machines, too.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfrec.data import trained
from tfrec.data.dataset import COLUMNS, Dataset
from tfrec.data.negatives import Negatives, Own, Sampler, masses

ROWS_AT_ONCE = 8_192  # negatives are drawn for so many rows at once: another number draws others
SHARDS_AT_ONCE = 2  # files whose rows are shuffled together; some 100 MB


def columns(dataset: Dataset, rows: np.ndarray) -> dict[str, tf.Tensor]:
    """What `gather` reads: user, product int32 [n], context f32 [n, C] of the rows, features f32 [P, F], user_features f32 [U, G].

    Where the data have timestamps, day int32 [n], too.
    """
    with tf.device("CPU:0"):  # made here, outside of any graph, so that none holds a copy as a constant
        of_rows = {name: tf.constant(column) for name, column in dataset.columns(rows).items()}
        return of_rows | {name: tf.constant(getattr(dataset, name)) for name in ("features", "user_features")}


def gather(columns: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
    """A batch of the rows at `index` [B] of `columns`: user, product [B], context [B, C], features [B, F], user_features [B, G].

    user_features are there where the data have some, day [B] where they have timestamps.
    """
    batch = {name: tf.gather(columns[name], index) for name in COLUMNS if name in columns}
    batch["features"] = tf.gather(columns["features"], batch["product"])
    if columns["user_features"].shape[1]:
        batch["user_features"] = tf.gather(columns["user_features"], batch["user"])
    return batch


def _drawer(dataset: Dataset, rows: np.ndarray, how: Negatives, batch_size: int) -> Callable[..., dict[str, tf.Tensor]]:
    """What adds the negatives to a block of batches, as Negatives says."""
    mass = masses(trained.counts(dataset, rows, "product"), how.power)
    sampler = Sampler(mass)
    own = Own(dataset.user[rows], dataset.product[rows], dataset.num_users, mass) if how.reject else None

    def draw(
        steps: int, key: tf.Tensor, step: tf.Tensor, row: tf.Tensor, user: tf.Tensor, of_batch: tuple[tf.Tensor, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """For the slices of a block of `steps`: step [slices] and row [slices, width] within the block, user [slices, width] of each.

        of_batch: the products of each slice's global batch and whether they are no padding, both [slices, B].
        """
        if not (how.shared or how.in_batch):
            shape = [steps * batch_size, how.count]
            if not own:
                return {"negatives": tf.gather(sampler.draw(shape, key), row)}
            numbers = tf.reshape(tf.gather(sampler.numbers(shape, key), row), [-1, how.count])
            drawn = own.others(sampler, tf.reshape(user, [-1]), numbers)
            return {"negatives": tf.reshape(drawn, [-1, row.shape[1], how.count])}
        shared, real = of_batch if how.in_batch else (tf.gather(sampler.draw([steps, how.shared], key), step), None)
        made = {"negatives": shared}
        if own:
            width = user.shape[1]
            seen = own.among(tf.reshape(user, [-1]), tf.repeat(shared, width, axis=0))
            others = tf.cast(~tf.reshape(seen, [-1, width, shared.shape[1]]), tf.float32)
            made["negative_weight"] = others if real is None else others * tf.expand_dims(real, 1)
        elif real is not None:
            made["negative_weight"] = real
        return made

    return draw


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def training_batches(
    dataset: Dataset,
    rows: np.ndarray,
    task: str,
    batch_size: int,
    how: Negatives,
    seed: int,
    start: tuple[int, int] = (0, 0),
    slices: tuple[int, int, int] = (0, 1, 1),
    row_weight: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Batches without end, from (epoch, step) = start on: (batch, y f32 [B], weight f32 [B]).

    task: for "ranking", y is 1 and batch["negatives"] is what `how` says; else y is the scaled target.
    weight: the last batch of an epoch, of r rows, is padded to batch_size by repeating its rows at weight 0 (so the padding
        touches no table row of its own); the r rows weigh batch_size / r, so that mean(weight * loss) is the mean over them.
    row_weight: f32 [len(rows)], what each row weighs besides; None: all 1.
    slices: (first, count, total): yield the slices first .. first + count - 1 of each global batch cut into `total` pieces, in turn.
    """
    if dataset.stored:
        return _from_disk(dataset, rows, task, batch_size, how, seed, start, slices)
    table = columns(dataset, rows)
    y = tf.ones(len(rows)) if task == "ranking" else tf.constant(dataset.targets(rows))
    of_rows = None if row_weight is None else tf.constant(row_weight)
    steps = steps_per_epoch(len(rows), batch_size)
    first, count, total = slices
    width = batch_size // total
    draw = _drawer(dataset, rows, how, batch_size) if task == "ranking" else None
    at_once = max(ROWS_AT_ONCE // batch_size, 1)  # steps whose batches are gathered together: one by one would cost as much as a step
    blocks = -(-steps // at_once)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), [seed, tf.cast(epoch, tf.int32)])
        start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)

        def block_of(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            """The slices of a block of steps, [slices, width, ...]."""
            block = tf.cast(number, tf.int32)
            piece = tf.range(block * at_once * count, tf.minimum((block + 1) * at_once, steps) * count)[:, None]
            begin = piece // count * batch_size
            real = tf.minimum(batch_size, len(rows) - begin)
            place = (first + piece % count) * width + tf.range(width)
            index = tf.gather(order, begin + place % real)
            batch = gather(table, index)
            if draw:
                key = tf.stack([tf.cast(seed, tf.int64) * blocks + number, -1 - epoch])  # the shuffle's is [seed, epoch]
                step = tf.range(tf.shape(piece)[0]) // count  # within the block
                whole = tf.gather(order, begin + tf.range(batch_size) % real)  # the rows of the global batch
                of_batch = tf.gather(table["product"], whole), tf.cast(tf.range(batch_size) < real, tf.float32)
                batch |= draw(at_once, key, step, step[:, None] * batch_size + place % real, batch["user"], of_batch)
            weight = tf.where(place < real, batch_size / tf.cast(real, tf.float32), 0.0)
            weight = weight if of_rows is None else weight * tf.gather(of_rows, index)
            return batch, tf.gather(y, index), weight

        made = tf.data.Dataset.range(start_step // at_once, blocks).map(block_of, tf.data.AUTOTUNE, deterministic=True)
        batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))  # unbatch() crashes on features [B, 0]
        return batches.skip(start_step % at_once * count)

    return _endless(epoch_batches, start)


def _from_disk(
    dataset: Dataset,
    rows: np.ndarray,
    task: str,
    batch_size: int,
    how: Negatives,
    seed: int,
    start: tuple[int, int],
    slices: tuple[int, int, int],
) -> tf.data.Dataset:
    """training_batches of the rows on disk."""
    stored, (first, count, total) = dataset.stored, slices
    assert stored
    lane, lanes = first // count, total // count  # each machine has a lane: a part of the epoch's order of rows
    of_lane, width = batch_size // lanes, batch_size // total
    steps, length = steps_per_epoch(len(stored), batch_size), -(-len(stored) // lanes)  # a lane may repeat its last row, at weight 0
    begin, end = lane * len(stored) // lanes, (lane + 1) * len(stored) // lanes
    with tf.init_scope(), tf.device("CPU:0"):
        sizes, scale, offset = (tf.constant(values) for values in (stored.sizes, dataset.scale, dataset.offset))
        of_products, of_users = tf.constant(dataset.features), tf.constant(dataset.user_features)
    draw = _drawer(dataset, rows, how, batch_size) if task == "ranking" else None
    at_once = max(ROWS_AT_ONCE // batch_size, 1)
    blocks = -(-steps // at_once)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(stored.files), dtype=tf.int64), [seed, tf.cast(epoch, tf.int32)])
        ends = tf.cumsum(tf.gather(sizes, order))
        starts = ends - tf.gather(sizes, order)
        start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)
        start_row = start_step // at_once * at_once * of_lane  # of the lane
        shards = tf.searchsorted(ends, [begin], side="right", out_type=tf.int64)[0], tf.searchsorted(starts, [end], out_type=tf.int64)[0]
        parts = -(-(shards[1] - shards[0]) // SHARDS_AT_ONCE)
        first_part = (tf.searchsorted(ends, [begin + start_row], side="right", out_type=tf.int64)[0] - shards[0]) // SHARDS_AT_ONCE

        def part_of(number: tf.Tensor) -> tf.data.Dataset:
            """The rows of some shards, shuffled together, in pieces."""
            low = shards[0] + number * SHARDS_AT_ONCE
            high = tf.minimum(low + SHARDS_AT_ONCE, shards[1])
            found = stored.read(order[low:high])
            there = tf.maximum(begin, starts[low]), tf.minimum(end, ends[high - 1])  # in the epoch's order
            place = tf.range(there[0] - starts[low], there[1] - starts[low])
            place = tf.random.experimental.stateless_shuffle(place, [seed + tf.cast(number, tf.int32), -2 - tf.cast(epoch, tf.int32)])
            missing = tf.where(there[1] == end, length - (end - begin), 0)
            place = tf.concat([place, place[tf.size(place) - missing :]], axis=0)
            place = place[tf.maximum(begin + start_row - there[0], 0) :]
            pieces = tf.data.Dataset.range(0, tf.size(place, tf.int64), ROWS_AT_ONCE)
            return pieces.map(lambda at: {name: tf.gather(column, place[at : at + ROWS_AT_ONCE]) for name, column in found.items()})

        def block_of(number: tf.Tensor, found: dict[str, tf.Tensor]) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            """The slices of a block of steps, [slices, width, ...]."""
            block = tf.cast(number, tf.int32)
            step = tf.range(tf.minimum(at_once, steps - block * at_once))
            step, piece = tf.repeat(step, count), tf.tile(tf.range(count), tf.shape(step))
            real = tf.minimum(of_lane, length - (block * at_once + step) * of_lane)[:, None]
            place = piece[:, None] * width + tf.range(width)
            index = step[:, None] * of_lane + place % real
            batch = {name: tf.gather(found[name], index) for name in COLUMNS if name in found}
            batch["features"] = tf.gather(of_products, batch["product"])
            if of_users.shape[1]:
                batch["user_features"] = tf.gather(of_users, batch["user"])
            if draw:
                key = tf.stack([tf.cast(seed, tf.int64) * blocks + number, -1 - epoch])
                whole = tf.gather(found["product"], step[:, None] * of_lane + tf.range(of_lane) % real)
                of_batch = whole, tf.cast(tf.range(of_lane) < real, tf.float32)
                of_global = lane * of_lane + place % real
                batch |= draw(at_once, key, step, step[:, None] * batch_size + of_global, batch["user"], of_batch)
                y = tf.ones_like(place, tf.float32)
            else:
                of_scale = tf.gather(scale, batch["product"])
                y = (tf.gather(found["rating"], index) - tf.gather(offset, batch["product"])) / tf.where(of_scale == 0, 1.0, of_scale)
                y = tf.where(of_scale == 0, 0.5, y)
            in_lane = (block * at_once + step)[:, None] * of_lane + place
            in_batch = tf.minimum(batch_size, len(stored) - (block * at_once + step) * batch_size)[:, None]
            weight = tf.where((place < real) & (in_lane < end - begin), batch_size / tf.cast(in_batch, tf.float32), 0.0)
            return batch, y, weight

        pieces = tf.data.Dataset.range(first_part, parts).flat_map(lambda number: part_of(number).prefetch(4)).prefetch(64)
        numbers = tf.data.Dataset.range(start_step // at_once, blocks)
        found = pieces.rebatch(at_once * of_lane)
        made = tf.data.Dataset.zip(numbers, found).map(block_of, tf.data.AUTOTUNE, deterministic=True)
        batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))
        return batches.skip(start_step % at_once * count)

    return _endless(epoch_batches, start)


def _endless(epoch_batches: Callable[[tf.Tensor], tf.data.Dataset], start: tuple[int, int]) -> tf.data.Dataset:
    epochs = tf.data.Dataset.range(tf.cast(start[0], tf.int64), tf.int64.max)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)  # else a distributed iterator forgets the shapes
    return epochs.flat_map(epoch_batches).apply(endless).prefetch(tf.data.AUTOTUNE)
