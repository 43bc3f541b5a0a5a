"""Interactions -> batches.

The global batch of (seed, epoch, step) is a pure function of these three: one stateless permutation
an epoch, then slices of it. Replicas slice the global batch, so its content does not depend on how
many there are.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.catalog import Catalog
from tfrec.data.negatives import (
    Negatives,
    PositivesIndex,
    ProductsOfUsers,
    Sampler,
    sampling_weights,
)
from tfrec.data.targets import Scaling
from tfrec.errors import UsageError
from tfrec.system.in_numpy import in_numpy

AHEAD = 4  # blocks
DISLIKED = 2**40  # added to a block's key, for draws of its own
_PLACE_BITS = 32  # of a number that an id and its place make
_PLACE = 2**_PLACE_BITS - 1
MOST_DENSE = 2**28  # numbers: 1 GiB
# rows of which batches are made: one by one they would cost as much as a step. With negatives
# another number draws others; without, numpy is called for more of those that are put in order
ROWS_AT_ONCE, ORDERED_AT_ONCE = 8_192, 32_768

Batch = dict[str, tf.Tensor]
Start = tuple[int, int]
Slices = tuple[int, int, int]


@dataclass(frozen=True)
class BatchSettings:
    """What batches are made of, see Interactions.batches.

    Args:
        confidence_power: A row's weight is (rating / highest rating) ^ confidence_power, with mean
            1; 0: all weigh alike.
        scaling: What makes targets of the ratings; None: targets are the ratings.
        ordered: Rows are in order of user, and a batch tells the order of its products, see
            `with_orders`: the same set of rows.
        recency: A row's weight is times 1 + recency e^(-i / 10), where its user has i later rows.
    """

    batch_size: int
    seed: int = 0
    negatives: Negatives | None = None
    confidence_power: float = 0.0
    scaling: Scaling | None = None
    columns: Collection[str] | None = None
    ordered: bool = False
    recency: float = 0.0

    def reads(self, column: str) -> bool:
        """Returns whether a batch holds the column, if there is one."""
        return column in ("user", "product") or self.columns is None or column in self.columns

    @property
    def steps_at_once(self) -> int:
        """Returns of how many steps the batches are made at once."""
        many = self.ordered and self.negatives is None
        return max((ORDERED_AT_ONCE if many else ROWS_AT_ONCE) // self.batch_size, 1)


class Batches:
    """Training batches (batch, y f32 [B], weight f32 [B]) without end.

    The last batch of an epoch, of r rows, is padded to the batch size by repeating its rows at
    weight 0; its r rows weigh batch_size / r, so that mean(weight * loss) is the mean over them.
    """

    def __init__(
        self, rows: int, settings: BatchSettings, make: Callable[[Start, Slices], tf.data.Dataset]
    ) -> None:
        self.rows, self.settings, self._make = rows, settings, make

    @property
    def steps_per_epoch(self) -> int:
        """Returns the number of batches of an epoch; the last may be padded."""
        return steps_per_epoch(self.rows, self.settings.batch_size)

    def __iter__(self) -> Iterator[tuple[Batch, tf.Tensor, tf.Tensor]]:
        return iter(self.dataset())

    def dataset(self, start: Start = (0, 0), slices: Slices = (0, 1, 1)) -> tf.data.Dataset:
        """Returns the batches from an epoch and step on.

        Args:
            start: (epoch, step), from 0.
            slices: (first, count, total): the slices first .. first + count - 1 of each global
                batch cut into `total`, in turn.
        """
        return self._make(start, slices)


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Returns the number of batches in which each row stands once."""
    return -(-rows // batch_size)


def everything(column: str) -> bool:
    """Returns what a batch of all columns reads."""
    return True


class PackedRows:
    """Columns of 32 bits side by side: a row is one place in memory, which a batch gathers once.

    Args:
        columns: int32 or f32 [n] or [n, C].
    """

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self.kinds = {name: column.dtype for name, column in columns.items()}
        self.shapes = {name: column.shape[1:] for name, column in columns.items()}
        self.widths = [int(np.prod(shape)) for shape in self.shapes.values()]
        flat = [
            np.ascontiguousarray(column).view(np.int32).reshape(len(column), width)
            for column, width in zip(columns.values(), self.widths)
        ]
        with tf.device("CPU:0"):
            self.rows = tf.constant(np.concatenate(flat, axis=1))

    def columns(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns of rows int32 [..., W], by name."""
        found = {}
        for (name, kind), values in zip(self.kinds.items(), tf.split(rows, self.widths, axis=-1)):
            values = values if self.shapes[name] else tf.squeeze(values, -1)
            found[name] = values if kind == np.int32 else tf.bitcast(values, tf.float32)
        return found


def feature_tables(
    catalog: Catalog, reads: Callable[[str], bool] = everything
) -> dict[str, tf.Tensor]:
    """Returns the dense tables that a batch reads: features f32 [P, F], and user_features f32
    [U, G] where the data have some.

    Raises:
        UsageError: A table would have more than 2^28 numbers.
    """
    tables = {"features": catalog.features}
    if catalog.user_features.shape[1]:
        tables["user_features"] = catalog.user_features
    tables = {name: table for name, table in tables.items() if reads(name)}
    for name, table in tables.items():
        rows, columns = table.shape
        if rows * columns > MOST_DENSE:
            raise UsageError(
                f'batch["{name}"]: {rows:,} rows x {columns:,} features are too many for a dense '
                "table. Read them by tfrec.layers.FeatureTable, and leave them out of the model's "
                "batch_columns."
            )
    with tf.device("CPU:0"):
        return {name: tf.constant(table.dense()) for name, table in tables.items()}


def with_features(batch: Batch, tables: dict[str, tf.Tensor]) -> Batch:
    """Returns the batch with the features of its products and users."""
    ids = {"features": "product", "user_features": "user"}
    return batch | {name: tf.gather(table, batch[ids[name]]) for name, table in tables.items()}


def in_order(keys: tf.Tensor, place: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the keys int32 [S, W] of slices, and what place int [S, W] each has, so that the keys
    of a slice rise; of equal ones the lowest place comes first.
    """

    def order(keys: np.ndarray, place: np.ndarray) -> list[np.ndarray]:
        both = _ordered(keys, place)
        return [(both >> _PLACE_BITS).astype(np.int32), (both & _PLACE).astype(np.int32)]

    found = in_numpy(order, [keys, tf.cast(place, tf.int32)], [keys.shape, keys.shape])
    return found[0], tf.cast(found[1], place.dtype)


def with_orders(batch: Batch) -> Batch:
    """Returns slices of batches, in order of user, with what lets a step sum the gradients of a
    table's rows without a search.

    orders: int32 [S, W + 2 n], one behind the other
        which of the slice's users each row has, counted from 0, [W]
        where the products stand, in order of product; a row's own negatives are counted behind its
        product, [n]
        which of the different products each is, in that order, [n]
    """
    user, products = batch["user"], batch["product"]
    if "negatives" in batch and batch["negatives"].shape.rank == 3:
        every = tf.concat([products[..., None], batch["negatives"]], axis=2)
        products = tf.reshape(every, [-1, every.shape[1] * every.shape[2]])

    def orders(user: np.ndarray, products: np.ndarray) -> list[np.ndarray]:
        keys = _ordered(products, np.arange(products.shape[1]))
        places = (keys & _PLACE).astype(np.int32)
        return [np.hstack([_segments(user), places, _segments(keys >> _PLACE_BITS)])]

    shape = tf.TensorShape([None, user.shape[1] + 2 * products.shape[1]])
    (found,) = in_numpy(orders, [user, products], [shape])
    return batch | {"orders": found}


def ranks(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows int [n] in order of their ids int32 [n], and where each row stands in that
    order, int32 [n].
    """
    rows = _ordered(ids, np.arange(len(ids))) & _PLACE
    places = np.empty(len(ids), np.int32)
    places[rows] = np.arange(len(ids), dtype=np.int32)
    return rows, places


def _ordered(ids: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns ids int32 [..., n] in order, the places that they have behind them: numpy sorts such
    numbers ten times as fast as it, or TensorFlow, tells the order of the ids.
    """
    keys = ids.astype(np.int64) << _PLACE_BITS | places
    keys.sort(axis=-1)
    return keys


def _segments(ids: np.ndarray) -> np.ndarray:
    """Returns which of the ids [S, n] of a row, which rise, each is, counted from 0."""
    new = np.zeros(ids.shape, np.int32)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=new[:, 1:], casting="unsafe")
    return np.cumsum(new, axis=1, dtype=np.int32)


@dataclass(frozen=True)
class Block:
    """Where the slices of some consecutive steps stand; [S] slices of [W] rows each.

    Args:
        steps: How many steps a whole block has.
        key: Seed of the block's draws, int64 [2].
        step: Step of each slice, counted within the block, int [S].
        row: Row of the block that each row of a slice is, int [S, W].
        products: Products of each slice's global batch, or of its worker's part of it, [S, B].
        real: Which of these are no padding, f32 [S, B].
    """

    steps: int
    key: tf.Tensor
    step: tf.Tensor
    row: tf.Tensor
    products: tf.Tensor
    real: tf.Tensor


class NegativeSampler:
    """Adds the negatives to a block of batches.

    Args:
        negatives: Which.
        counts: Training rows of each product, int [P].
        positives: Which products users have in training; None: they are not excluded.
        batch_size: Rows of a global batch.
        disliked: Products that users are known not to like.
    """

    def __init__(
        self,
        negatives: Negatives,
        counts: np.ndarray,
        positives: PositivesIndex | None,
        batch_size: int,
        disliked: ProductsOfUsers | None = None,
    ) -> None:
        self.negatives, self.positives, self.batch_size = negatives, positives, batch_size
        self.disliked = disliked
        self.sampler = Sampler(sampling_weights(counts, negatives.power))

    def __call__(self, block: Block, user: tf.Tensor) -> Batch:
        """negatives int32 and maybe negative_weight f32 for users int32 [S, W]; see Negatives."""
        if self.negatives.shared or self.negatives.in_batch:
            return self._shared(block, user)
        drawn = self._own(block, user)
        if self.disliked:
            rows = block.steps * self.batch_size
            uniforms = self.sampler.uniforms([rows], block.key + DISLIKED)
            first = self.disliked.draw(user, tf.gather(uniforms, block.row), drawn[..., 0])
            drawn = tf.concat([first[..., None], drawn[..., 1:]], axis=-1)
        return {"negatives": drawn}

    def _own(self, block: Block, user: tf.Tensor) -> tf.Tensor:
        """Returns each row's own negatives, int32 [S, W, count]."""
        count, sampler = self.negatives.count, self.sampler
        rows = block.steps * self.batch_size
        if not self.positives:
            return tf.gather(sampler.draw([rows, count], block.key), block.row)
        uniforms = tf.gather(sampler.uniforms([rows, count], block.key), block.row)
        drawn = self.positives.sample_unseen(
            sampler, tf.reshape(user, [-1]), tf.reshape(uniforms, [-1, count])
        )
        return tf.reshape(drawn, [-1, block.row.shape[1], count])

    def _shared(self, block: Block, user: tf.Tensor) -> Batch:
        negatives, weight = block.products, block.real
        if not self.negatives.in_batch:
            drawn = self.sampler.draw([block.steps, self.negatives.shared], block.key)
            negatives, weight = tf.gather(drawn, block.step), None
        if self.positives:
            width, size = user.shape[1], negatives.shape[1]
            seen = self.positives.contains(
                tf.reshape(user, [-1]), tf.repeat(negatives, width, axis=0)
            )
            unseen = tf.cast(~tf.reshape(seen, [-1, width, size]), tf.float32)
            weight = unseen if weight is None else unseen * tf.expand_dims(weight, 1)
        return {"negatives": negatives} | ({} if weight is None else {"negative_weight": weight})


def endless(
    epoch_batches: Callable[[tf.Tensor], tf.data.Dataset], start: Start, ahead: int
) -> tf.data.Dataset:
    """Returns the slices of all epochs from start = (epoch, step) on, `ahead` of which are made
    before they are asked for.

    tf.data.AUTOTUNE would make ever more of them, GBs in the end, each time that reading a file
    lets the training wait.
    """
    epochs = tf.data.Dataset.range(tf.cast(start[0], tf.int64), tf.int64.max)
    # else a distributed iterator forgets the shapes
    without_end = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)
    return epochs.flat_map(epoch_batches).apply(without_end).prefetch(ahead)
