"""Dataset + rows -> batches.

The global batch of (seed, epoch, step) is a pure function of these three: one stateless permutation an epoch, then slices of it.
Replicas slice the global batch, so its content does not depend on how many there are.
"""

import numpy as np
import tensorflow as tf

from tfrec.data import negatives
from tfrec.data.dataset import Dataset

ROWS_AT_ONCE = 8_192  # negatives are drawn for so many rows at once: another number draws others


def columns(dataset: Dataset, rows: np.ndarray) -> dict[str, tf.Tensor]:
    """What `gather` reads: user, product int32 [n] and context f32 [n, C] of the rows, features f32 [P, F], user_features f32 [U, G]."""
    with tf.device("CPU:0"):  # made here, outside of any graph, so that none holds a copy as a constant
        of_rows = {name: tf.constant(getattr(dataset, name)[rows]) for name in ("user", "product", "context")}
        return of_rows | {name: tf.constant(getattr(dataset, name)) for name in ("features", "user_features")}


def gather(columns: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
    """A batch of the rows at `index` [B] of `columns`: user, product [B], context [B, C], features [B, F], user_features [B, G].

    user_features are there where the data have some.
    """
    batch = {name: tf.gather(columns[name], index) for name in ("user", "product", "context")}
    batch["features"] = tf.gather(columns["features"], batch["product"])
    if columns["user_features"].shape[1]:
        batch["user_features"] = tf.gather(columns["user_features"], batch["user"])
    return batch


def steps_per_epoch(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)


def training_batches(
    dataset: Dataset,
    rows: np.ndarray,
    task: str,
    batch_size: int,
    num_negatives: int,
    seed: int,
    start: tuple[int, int] = (0, 0),
    slices: tuple[int, int, int] = (0, 1, 1),
    num_shared: int = 0,
) -> tf.data.Dataset:
    """Batches without end, from (epoch, step) = start on: (batch, y f32 [B], weight f32 [B]).

    task: for "ranking", y is 1 and batch["negatives"] is int32 [B, num_negatives]; else y is the scaled target.
    num_shared: batch["negatives"] is int32 [num_shared] in place of that, the same for all rows and slices of a global batch; 0: it is not.
    weight: the last batch of an epoch, of r rows, is padded to batch_size by repeating its rows at weight 0 (so the padding
        touches no table row of its own); the r rows weigh batch_size / r, so that mean(weight * loss) is the mean over them.
    slices: (first, count, total): yield the slices first .. first + count - 1 of each global batch cut into `total` pieces, in turn.
    """
    table = columns(dataset, rows)
    y = tf.ones(len(rows)) if task == "ranking" else tf.constant(dataset.targets(rows))
    steps = steps_per_epoch(len(rows), batch_size)
    first, count, total = slices
    width = batch_size // total
    at_once = max(ROWS_AT_ONCE // batch_size, 1)  # steps whose batches are gathered together: one by one would cost as much as a step
    blocks = -(-steps // at_once)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), [seed, tf.cast(epoch, tf.int32)])
        start_step = tf.where(epoch == start[0], tf.constant(start[1], tf.int64), 0)

        def block_of(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            """The slices of a block of steps, [slices, width, ...]."""
            block = tf.cast(number, tf.int32)
            piece = tf.range(block * at_once * count, tf.minimum((block + 1) * at_once, steps) * count)[:, None]
            begin = piece // count * batch_size
            real = tf.minimum(batch_size, len(rows) - begin)
            place = (first + piece % count) * width + tf.range(width)
            index = tf.gather(order, begin + place % real)
            batch = gather(table, index)
            if task == "ranking":
                key = tf.stack([tf.cast(seed, tf.int64) * blocks + number, -1 - epoch])  # the shuffle's is [seed, epoch]
                if num_shared:
                    drawn = negatives.uniform([at_once, num_shared], dataset.num_products, key)
                    batch["negatives"] = tf.gather(drawn, tf.range(tf.shape(piece)[0]) // count)
                else:
                    drawn = negatives.uniform([at_once * batch_size, num_negatives], dataset.num_products, key)
                    batch["negatives"] = tf.gather(drawn, begin - block * at_once * batch_size + place % real)
            weight = tf.where(place < real, batch_size / tf.cast(real, tf.float32), 0.0)
            return batch, tf.gather(y, index), weight

        made = tf.data.Dataset.range(start_step // at_once, blocks).map(block_of, tf.data.AUTOTUNE, deterministic=True)
        batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))  # unbatch() crashes on features [B, 0]
        return batches.skip(start_step % at_once * count)

    epochs = tf.data.Dataset.range(start[0], tf.int64.max)
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)  # else a distributed iterator forgets the shapes
    return epochs.flat_map(epoch_batches).apply(endless).prefetch(tf.data.AUTOTUNE)
