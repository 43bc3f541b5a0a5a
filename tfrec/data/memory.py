"""Interactions in memory."""

import functools
import zlib
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from tfrec.data.batches import (
    AHEAD,
    Batch,
    BatchSettings,
    Block,
    NegativeSampler,
    PackedRows,
    Slices,
    Start,
    endless,
    feature_tables,
    in_order,
    ranks,
    steps_per_epoch,
    with_features,
    with_orders,
)
from tfrec.data.catalog import Catalog
from tfrec.data.interactions import Columns, Interactions, Split
from tfrec.data.negatives import PositivesIndex, ProductsOfUsers, here, sampling_weights
from tfrec.data.targets import RatingStats, Scaling


class MemoryInteractions(Interactions):
    """Rows as arrays.

    Args:
        columns: user, product int32 [n], rating f32 [n], context f32 [n, C]; where there are
            timestamps, timestamp int64 [n], seconds; where rows have weights, weight f32 [n]; and
            where files say it, part int8 [n].
    """

    in_memory = True

    def __init__(self, catalog: Catalog, columns: Columns) -> None:
        super().__init__(catalog)
        self.disliked: MemoryInteractions | None = None
        self.all_columns = columns
        self.user, self.product = columns["user"], columns["product"]
        self.rating, self.context = columns["rating"], columns["context"]
        self.timestamp, self.weight = columns.get("timestamp"), columns.get("weight")

    def __len__(self) -> int:
        return len(self.user)

    @property
    def timed(self) -> bool:
        return self.timestamp is not None

    @functools.cached_property
    def day(self) -> np.ndarray | None:
        """Returns each row's day since 1970 (UTC), int32 [n], or None."""
        return None if self.timestamp is None else (self.timestamp // 86_400).astype(np.int32)

    def take(self, rows: np.ndarray) -> "MemoryInteractions":
        """Some of the rows, int or bool [m]."""
        columns = {name: column[rows] for name, column in self.all_columns.items()}
        return MemoryInteractions(self.catalog, columns)

    def joined(self, others: Interactions) -> "MemoryInteractions":
        assert isinstance(others, MemoryInteractions)
        behind = others.all_columns
        columns = {n: np.concatenate([c, behind[n]]) for n, c in self.all_columns.items()}
        return MemoryInteractions(self.catalog, columns)

    def rated_from(self, least: float) -> tuple["MemoryInteractions", "MemoryInteractions"]:
        liked = self.rating >= least
        return self.take(liked), self.take(~liked)

    def without(self, *others: "MemoryInteractions") -> "MemoryInteractions":
        """Returns the rows whose user and product are in none of the others."""
        return self.take(~np.isin(self.keys, np.concatenate([other.keys for other in others])))

    @functools.cached_property
    def keys(self) -> np.ndarray:
        """user * P + product of each row, int64 [n]."""
        return self.user.astype(np.int64) * self.num_products + self.product

    def users(self) -> np.ndarray:
        return np.unique(self.user)

    def of_users(self, users: np.ndarray) -> "MemoryInteractions":
        return self.take(np.isin(np.arange(self.num_users), users)[self.user])

    def counts(self, side: str) -> np.ndarray:
        ids, size = (
            (self.user, self.num_users) if side == "user" else (self.product, self.num_products)
        )
        return np.bincount(ids, minlength=size)

    def batch_columns(self) -> Columns:
        """Returns what a batch has of its rows."""
        columns = {"user": self.user, "product": self.product, "context": self.context}
        return columns | ({} if self.day is None else {"day": self.day})

    def chunks(self) -> Iterator[Columns]:
        more = ("rating", "timestamp", "weight")
        rows = {name: self.all_columns[name] for name in more if name in self.all_columns}
        yield self.batch_columns() | rows

    @functools.cached_property
    def stats(self) -> RatingStats:
        low, high = (np.full(self.num_products, bound, np.float32) for bound in (np.inf, -np.inf))
        np.minimum.at(low, self.product, self.rating)
        np.maximum.at(high, self.product, self.rating)
        if not len(self):
            return RatingStats(0.0, 0.0, low, high)
        mean, deviation = self.rating.mean(dtype=np.float64), self.rating.std(dtype=np.float64)
        return RatingStats(float(mean), float(deviation), low, high)

    def scaled_mean(self, scaling: Scaling) -> float:
        return float(scaling.to_targets(self.rating, self.product).mean())

    @functools.cached_property
    def fingerprint(self) -> int:
        total = 0
        for name in ("user", "product", "rating", "context", "weight"):
            if name in self.all_columns:
                total = zlib.crc32(self.all_columns[name].tobytes(), total)
        return total

    def training_dataset(
        self, settings: BatchSettings, start: Start, slices: Slices
    ) -> tf.data.Dataset:
        rows, size, seed = len(self), settings.batch_size, settings.seed
        columns, row_places = self._columns(settings), None
        if settings.ordered:  # then a user's rows have one number after the other
            of_rows, places = ranks(self.user)
            columns = {name: column[of_rows] for name, column in columns.items()}
            row_places = here(places)
        packed = PackedRows(columns)
        features = feature_tables(self.catalog, settings.reads)
        steps = steps_per_epoch(rows, size)
        add_negatives = self._negative_sampler(settings)
        first, count, total = slices
        width = size // total
        at_once = settings.steps_at_once
        blocks = -(-steps // at_once)

        def block_of(number: tf.Tensor, epoch: tf.Tensor, order: tf.Tensor) -> tuple:
            """The slices of a block of steps: (batch, y, weight), [slices, width, ...]."""
            block = tf.cast(number, tf.int32)
            last = tf.minimum((block + 1) * at_once, steps) * count
            piece = tf.range(block * at_once * count, last)[:, None]
            begin = piece // count * size
            real = tf.minimum(size, rows - begin)
            place = (first + piece % count) * width + tf.range(width)
            chosen = tf.gather(order, begin + place % real)
            if settings.ordered:
                chosen, place = in_order(chosen, tf.broadcast_to(place, tf.shape(chosen)))
            batch: Batch = packed.columns(tf.gather(packed.rows, chosen))
            y = batch.pop("y", None)
            row_weight = batch.pop("weight", None)
            batch = with_features(batch, features)
            if add_negatives:
                # the shuffle's key is [seed, epoch]
                key = tf.stack([tf.cast(seed, tf.int64) * blocks + number, -1 - epoch])
                step = tf.range(tf.shape(piece)[0]) // count
                whole = tf.gather(order, begin + tf.range(size) % real)
                drawn = Block(
                    steps=at_once,
                    key=key,
                    step=step,
                    row=step[:, None] * size + place % real,
                    products=tf.gather(packed.rows, whole)[..., 1],
                    real=tf.cast(tf.range(size) < real, tf.float32),
                )
                batch |= add_negatives(drawn, batch["user"])
            if settings.ordered:
                batch = with_orders(batch)
            weight = tf.where(place < real, size / tf.cast(real, tf.float32), 0.0)
            weight = weight if row_weight is None else weight * row_weight
            return batch, tf.ones_like(weight) if y is None else y, weight

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            key = [seed, tf.cast(epoch, tf.int32)]
            every = tf.range(rows) if row_places is None else row_places
            order = tf.random.experimental.stateless_shuffle(every, key)
            start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)
            numbers = tf.data.Dataset.range(start_step // at_once, blocks)
            made = numbers.map(
                lambda number: block_of(number, epoch, order), tf.data.AUTOTUNE, deterministic=True
            )
            # unbatch() crashes on features [B, 0]
            batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))
            return batches.skip(start_step % at_once * count)

        return endless(epoch_batches, start, AHEAD * at_once * count)

    def _columns(self, settings: BatchSettings) -> Columns:
        """Returns what a batch gathers of its rows, user and product first, with targets and
        weights.
        """
        columns = {n: c for n, c in self.batch_columns().items() if settings.reads(n)}
        if settings.negatives is None:
            columns["y"] = self._targets(settings)
        weight = self._row_weights(settings.confidence_power, settings.recency)
        return columns if weight is None else columns | {"weight": weight}

    def _negative_sampler(self, settings: BatchSettings) -> NegativeSampler | None:
        negatives = settings.negatives
        if negatives is None:
            return None
        counts, positives, disliked = self.counts("product"), None, None
        if negatives.exclude_positives:
            weights = sampling_weights(counts, negatives.power)
            positives = PositivesIndex(self.user, self.product, self.num_users, weights)
        if negatives.explicit and self.disliked is not None:
            disliked = ProductsOfUsers.of(self.disliked.user, self.disliked.product, self.num_users)
        return NegativeSampler(negatives, counts, positives, settings.batch_size, disliked)

    def _targets(self, settings: BatchSettings) -> np.ndarray:
        """f32 [n]."""
        scaling = settings.scaling
        return scaling.to_targets(self.rating, self.product) if scaling else self.rating

    def _row_weights(self, power: float, recency: float) -> np.ndarray | None:
        """weight (rating / highest rating)^power, more for a user's latest rows, with mean 1,
        f32 [n]; never 0, as padding weighs.
        """
        if not power and not recency and self.weight is None:
            return None
        rating = np.maximum(self.rating, 0)
        weight = (rating / max(rating.max(), 1e-9)) ** power
        weight = weight if self.weight is None else weight * self.weight
        weight = weight * self.recency_weights(recency) if recency else weight
        return np.maximum(weight / max(weight.mean(), 1e-9), 1e-9).astype(np.float32)


def in_memory(sample: Split) -> tuple[MemoryInteractions, MemoryInteractions, MemoryInteractions]:
    """Returns the parts of a Split.sample: rows to train, to validate and to test."""
    parts = [part for part in sample.parts() if isinstance(part, MemoryInteractions)]
    train, validation, test = parts
    return train, validation, test
