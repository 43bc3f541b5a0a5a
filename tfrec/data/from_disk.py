"""Rows on disk (dataset.stored) -> training batches; like pipeline.py's a pure function of (seed,
epoch, step).

An epoch is an order of the files, cut into parts of SHARDS_AT_ONCE, within which the rows are
shuffled. Every machine of a cluster has a lane, an equal share of this order, which it alone reads
and of which it makes its slices: each row is in one global batch of an epoch, but in which one
depends on the number of machines. Lanes have the same length: one that has a row less repeats its
last one at weight 0.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.blocks import Stored
from tfrec.data.dataset import Dataset
from tfrec.data.negatives import Negatives
from tfrec.data.pipeline import (
    AHEAD,
    ROWS_AT_ONCE,
    drawer,
    endless,
    steps_per_epoch,
    tables,
    with_features,
)

SHARDS_AT_ONCE = 2  # some 100 MB

PACKED = ("user", "product", "rating")
PRODUCT = PACKED.index("product")
Columns = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Lane:
    """Rows begin .. end - 1 of an epoch's order, made up to `length`; `batch` of them are in each
    global batch, from its `first` on.

    rows: how many of them are its own: all, or none where there are fewer rows than lanes.
    """

    begin: int
    end: int
    rows: int
    length: int
    batch: int
    first: int


def training_batches(
    dataset: Dataset,
    rows: np.ndarray,
    task: str,
    batch_size: int,
    how: Negatives,
    seed: int,
    start: tuple[int, int] = (0, 0),
    slices: tuple[int, int, int] = (0, 1, 1),
) -> tf.data.Dataset:
    """As pipeline.training_batches."""
    stored, (first, count, total) = dataset.stored, slices
    assert stored
    number, lanes = first // count, total // count
    every = stored.size()
    begin, end = (at * every // lanes for at in (number, number + 1))
    own, of_lane = end - begin, batch_size // lanes
    begin, end = (
        (begin, end) if own else (max(begin - 1, 0), max(begin, 1))
    )  # a lane without rows shows another's, at weight 0
    lane = Lane(begin, end, own, -(-every // lanes), of_lane, number * of_lane)
    steps, at_once = steps_per_epoch(every, batch_size), max(ROWS_AT_ONCE // batch_size, 1)
    blocks = -(-steps // at_once)
    finish = _finisher(dataset, rows, task, batch_size, how, count, lane, steps, at_once)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)
        first_block = start_step // at_once
        found = _rows(stored, lane, first_block * at_once * of_lane, seed, epoch).rebatch(
            at_once * of_lane
        )
        numbered = tf.data.Dataset.zip(tf.data.Dataset.range(first_block, blocks), found)
        key = tf.stack([tf.constant(seed, tf.int64) * blocks, -1 - epoch])  # as pipeline.py's
        made = numbered.map(
            lambda block, found: finish(block, found, key), tf.data.AUTOTUNE, deterministic=True
        )
        batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))
        return batches.skip(start_step % at_once * count)

    return endless(epoch_batches, start, AHEAD * at_once * count)


def _rows(
    stored: Stored, lane: Lane, start: tf.Tensor, seed: int, epoch: tf.Tensor
) -> tf.data.Dataset:
    """The lane's rows in an epoch, from its row `start` int64 [] on, in pieces, `_packed`."""
    with tf.init_scope(), tf.device("CPU:0"):
        sizes = tf.constant(stored.sizes)
    order = tf.random.experimental.stateless_shuffle(
        tf.range(len(stored.sizes), dtype=tf.int64), [seed, tf.cast(epoch, tf.int32)]
    )
    ends = tf.cumsum(tf.gather(sizes, order))
    begins = ends - tf.gather(sizes, order)
    from_row = lane.begin + start

    def shard_of(row: tf.Tensor | int) -> tf.Tensor:
        return tf.math.count_nonzero(ends <= tf.cast(row, tf.int64))

    first, last = shard_of(lane.begin), shard_of(lane.end - 1)
    parts = (last - first) // SHARDS_AT_ONCE + 1
    part = tf.minimum(
        (shard_of(from_row) - first) // SHARDS_AT_ONCE, parts - 1
    )  # a lane may end with its repeated row

    def part_of(number: tf.Tensor) -> tf.data.Dataset:
        low = first + number * SHARDS_AT_ONCE
        high = tf.minimum(low + SHARDS_AT_ONCE, last + 1)
        found = _packed(stored.read(order[low:high]))
        begin, end = tf.maximum(begins[low], lane.begin), tf.minimum(ends[high - 1], lane.end)
        key = [tf.constant(seed), -2 - tf.cast(epoch * len(stored.sizes) + number, tf.int32)]
        place = tf.random.experimental.stateless_shuffle(tf.range(begin, end), key) - begins[low]
        lacks = tf.where(end == lane.end, lane.length - (lane.end - lane.begin), 0)
        place = tf.concat([place, place[tf.size(place) - lacks :]], axis=0)[
            tf.maximum(from_row - begin, 0) :
        ]
        pieces = tf.data.Dataset.range(0, tf.size(place, tf.int64), ROWS_AT_ONCE)
        return pieces.map(lambda at: tf.gather(found, place[at : at + ROWS_AT_ONCE]))

    return tf.data.Dataset.range(part, parts).flat_map(part_of).prefetch(64)


def _packed(columns: Columns) -> tf.Tensor:
    """Columns of 32 bits as one table int32 [n, W].

    A row is then one place in memory, and shuffling three times as fast.
    """
    names = [name for name in (*PACKED, "context", "day") if name in columns]
    return tf.concat(
        [
            tf.bitcast(tf.reshape(columns[name], [tf.size(columns["user"]), -1]), tf.int32)
            for name in names
        ],
        axis=1,
    )


def _unpacked(rows: tf.Tensor, context_width: int) -> Columns:
    """[..., W] -> the columns [...], and context f32 [..., C]."""
    columns = {name: rows[..., at] for at, name in enumerate(PACKED)}
    columns["rating"] = tf.bitcast(columns["rating"], tf.float32)
    columns["context"] = tf.bitcast(
        rows[..., len(PACKED) : len(PACKED) + context_width], tf.float32
    )
    return columns | ({"day": rows[..., -1]} if context_width else {})


def _finisher(
    dataset: Dataset,
    rows: np.ndarray,
    task: str,
    batch_size: int,
    how: Negatives,
    count: int,
    lane: Lane,
    steps: int,
    at_once: int,
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[Columns, tf.Tensor, tf.Tensor]]:
    """What makes of a block's number, its rows and the epoch's key the slices of its steps.

    (batch, y, weight), [slices, width, ...].
    """
    of_dataset = tables(dataset)
    with tf.device("CPU:0"):
        scale, offset = tf.constant(dataset.scale), tf.constant(dataset.offset)
    draw = drawer(dataset, rows, how, batch_size) if task == "ranking" else None
    width = lane.batch // count
    assert dataset.stored
    every, context_width = dataset.stored.size(), dataset.stored.context_width

    def finish(
        block: tf.Tensor, found: tf.Tensor, key: tf.Tensor
    ) -> tuple[Columns, tf.Tensor, tf.Tensor]:
        done = block * at_once
        within = tf.repeat(tf.range(tf.minimum(done + at_once, steps) - done), count)[
            :, None
        ]  # the step of each slice
        step = done + within
        place = tf.tile(tf.range(count, dtype=tf.int64), [tf.shape(within)[0] // count])[
            :, None
        ] * width + tf.range(width, dtype=tf.int64)
        real = tf.minimum(lane.length - step * lane.batch, lane.batch)
        index = within * lane.batch + place % real
        batch = _unpacked(tf.gather(found, index), context_width)
        rating = batch.pop("rating")
        batch = with_features(batch, of_dataset)
        if draw:
            y = tf.ones([tf.shape(index)[0], width])
            slot = tf.range(lane.batch, dtype=tf.int64)
            of_batch = (
                tf.gather(found[:, PRODUCT], within * lane.batch + slot % real),
                tf.cast(slot < real, tf.float32),
            )
            row = within * batch_size + lane.first + place % real
            batch |= draw(
                at_once, key + tf.stack([block, 0]), within[:, 0], row, batch["user"], of_batch
            )
        else:
            of_scale = tf.gather(scale, batch["product"])
            scaled = (rating - tf.gather(offset, batch["product"])) / tf.where(
                of_scale == 0, 1.0, of_scale
            )
            y = tf.where(of_scale == 0, 0.5, scaled)
        of_all = tf.cast(
            tf.minimum(every - step * batch_size, batch_size), tf.float32
        )  # rows of the global batch
        is_row = (place < real) & (step * lane.batch + place < lane.rows)
        return batch, y, tf.where(is_row, batch_size / of_all, 0.0)

    return finish
