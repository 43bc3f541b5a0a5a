"""Dataset + rows -> batches.

The global batch of (seed, epoch, step) is a pure function of these three: one stateless permutation
an epoch, then slices of it. Replicas slice the global batch, so its content does not depend on how
many there are.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfrec.data import trained
from tfrec.data.dataset import COLUMNS, Dataset
from tfrec.data.negatives import Negatives, Own, Sampler, masses

AHEAD = 4  # blocks
ROWS_AT_ONCE = 8_192  # negatives are drawn for so many rows at once: another number draws others


def columns(dataset: Dataset, rows: np.ndarray) -> dict[str, tf.Tensor]:
    """What `gather` reads: user, product int32 [n], context f32 [n, C] of the rows, features f32
    [P, F], user_features f32 [U, G].

    Where the data have timestamps, day int32 [n], too.
    """
    with tf.device(
        "CPU:0"
    ):  # made here, outside of any graph, so that none holds a copy as a constant
        return {
            name: tf.constant(column) for name, column in dataset.columns(rows).items()
        } | tables(dataset)


def tables(dataset: Dataset) -> dict[str, tf.Tensor]:
    """features f32 [P, F] and user_features f32 [U, G]."""
    with tf.device("CPU:0"):
        return {name: tf.constant(getattr(dataset, name)) for name in ("features", "user_features")}


def gather(columns: dict[str, tf.Tensor], index: tf.Tensor) -> dict[str, tf.Tensor]:
    """A batch of the rows at `index` [B] of `columns`: user, product [B], context [B, C], features
    [B, F], user_features [B, G].

    user_features are there where the data have some, day [B] where they have timestamps.
    """
    return with_features(
        {name: tf.gather(columns[name], index) for name in COLUMNS if name in columns}, columns
    )


def with_features(
    batch: dict[str, tf.Tensor], tables: dict[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """The batch with the rows of `tables` that belong to it."""
    found = batch | {"features": tf.gather(tables["features"], batch["product"])}
    if tables["user_features"].shape[1]:
        found["user_features"] = tf.gather(tables["user_features"], batch["user"])
    return found


def drawer(
    dataset: Dataset, rows: np.ndarray, how: Negatives, batch_size: int
) -> Callable[..., dict[str, tf.Tensor]]:
    """What adds the negatives to a block of batches, as Negatives says."""
    mass = masses(trained.counts(dataset, rows, "product"), how.power)
    sampler = Sampler(mass)
    own = (
        Own(dataset.user[rows], dataset.product[rows], dataset.num_users, mass)
        if how.reject
        else None
    )

    def draw(
        steps: int,
        key: tf.Tensor,
        step: tf.Tensor,
        row: tf.Tensor,
        user: tf.Tensor,
        of_batch: tuple[tf.Tensor, tf.Tensor],
    ) -> dict[str, tf.Tensor]:
        """For the slices of a block of `steps`: step [slices] and row [slices, width] within the
        block, user [slices, width] of each.

        of_batch: the products of each slice's global batch and whether they are no padding, both
        [slices, B].
        """
        if not (how.shared or how.in_batch):
            shape = [steps * batch_size, how.count]
            if not own:
                return {"negatives": tf.gather(sampler.draw(shape, key), row)}
            numbers = tf.reshape(tf.gather(sampler.numbers(shape, key), row), [-1, how.count])
            drawn = own.others(sampler, tf.reshape(user, [-1]), numbers)
            return {"negatives": tf.reshape(drawn, [-1, row.shape[1], how.count])}
        shared, real = (
            of_batch
            if how.in_batch
            else (tf.gather(sampler.draw([steps, how.shared], key), step), None)
        )
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

    task: for "ranking", y is 1 and batch["negatives"] is what `how` says; else y is the scaled
    target. weight: the last batch of an epoch, of r rows, is padded to batch_size by repeating its
    rows at weight 0 (so the padding
        touches no table row of its own); the r rows weigh batch_size / r, so that mean(weight *
        loss) is the mean over them.
    row_weight: f32 [len(rows)], what each row weighs besides; None: all 1. slices: (first, count,
    total): yield the slices first .. first + count - 1 of each global batch cut into `total`
    pieces, in turn.
    """
    table = columns(dataset, rows)
    y = tf.ones(len(rows)) if task == "ranking" else tf.constant(dataset.targets(rows))
    of_rows = None if row_weight is None else tf.constant(row_weight)
    steps = steps_per_epoch(len(rows), batch_size)
    first, count, total = slices
    width = batch_size // total
    draw = drawer(dataset, rows, how, batch_size) if task == "ranking" else None
    at_once = max(
        ROWS_AT_ONCE // batch_size, 1
    )  # steps whose batches are gathered together: one by one would cost as much as a step
    blocks = -(-steps // at_once)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(rows)), [seed, tf.cast(epoch, tf.int32)]
        )
        start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)

        def block_of(number: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
            """The slices of a block of steps, [slices, width, ...]."""
            block = tf.cast(number, tf.int32)
            piece = tf.range(
                block * at_once * count, tf.minimum((block + 1) * at_once, steps) * count
            )[:, None]
            begin = piece // count * batch_size
            real = tf.minimum(batch_size, len(rows) - begin)
            place = (first + piece % count) * width + tf.range(width)
            index = tf.gather(order, begin + place % real)
            batch = gather(table, index)
            if draw:
                key = tf.stack(
                    [tf.cast(seed, tf.int64) * blocks + number, -1 - epoch]
                )  # the shuffle's is [seed, epoch]
                step = tf.range(tf.shape(piece)[0]) // count  # within the block
                whole = tf.gather(
                    order, begin + tf.range(batch_size) % real
                )  # the rows of the global batch
                of_batch = (
                    tf.gather(table["product"], whole),
                    tf.cast(tf.range(batch_size) < real, tf.float32),
                )
                batch |= draw(
                    at_once,
                    key,
                    step,
                    step[:, None] * batch_size + place % real,
                    batch["user"],
                    of_batch,
                )
            weight = tf.where(place < real, batch_size / tf.cast(real, tf.float32), 0.0)
            weight = weight if of_rows is None else weight * tf.gather(of_rows, index)
            return batch, tf.gather(y, index), weight

        made = tf.data.Dataset.range(start_step // at_once, blocks).map(
            block_of, tf.data.AUTOTUNE, deterministic=True
        )
        batches = made.flat_map(
            lambda *block: tf.data.Dataset.from_tensor_slices(block)
        )  # unbatch() crashes on features [B, 0]
        return batches.skip(start_step % at_once * count)

    return endless(epoch_batches, start, AHEAD * at_once * count)


def endless(
    epoch_batches: Callable[[tf.Tensor], tf.data.Dataset], start: tuple[int, int], ahead: int
) -> tf.data.Dataset:
    """The slices of all epochs from start = (epoch, step) on, `ahead` of which are made before they
    are asked for.

    tf.data.AUTOTUNE would make ever more of them, GBs in the end, each time that reading a file
    lets the training wait.
    """
    epochs = tf.data.Dataset.range(tf.cast(start[0], tf.int64), tf.int64.max)
    without_end = tf.data.experimental.assert_cardinality(
        tf.data.INFINITE_CARDINALITY
    )  # else a distributed iterator forgets the shapes
    return epochs.flat_map(epoch_batches).apply(without_end).prefetch(ahead)
