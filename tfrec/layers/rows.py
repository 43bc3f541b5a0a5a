"""Rows of tables: what they start from, lookups and products."""

import contextlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

START = 0.05  # factors start within plus and minus so much


class Order(NamedTuple):
    """The order of some ids, see tfrec.data.batches.with_orders.

    segments: which of the different ids each is, in rising order, int32 [n].
    places: where they stand, int32 [n]; None: they rise.
    """

    segments: tf.Tensor
    places: tf.Tensor | None = None

    @classmethod
    def of(cls, batch: dict[str, tf.Tensor], side: str) -> "Order | None":
        """Returns that of a batch's users or products, if it tells."""
        if "orders" not in batch:
            return None
        rows = batch["user"].shape[0]
        products = (batch["orders"].shape[0] - rows) // 2
        users, places, segments = tf.split(batch["orders"], [rows, products, products])
        if side == "user":
            return cls(users)
        return cls(segments, places)

    def sort(self, values: tf.Tensor) -> tf.Tensor:
        """Returns values [n, ...] in the order of their ids."""
        return values if self.places is None else tf.gather(values, self.places)

    def sums(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the sum of the values [n, ...] of each id, [K, ...]."""
        return tf.math.segment_sum(self.sort(values), self.segments)

    def ids(self, ids: tf.Tensor) -> tf.Tensor:
        """Returns the different ones of the ids int [n], [K]."""
        return tf.math.segment_max(self.sort(ids), self.segments)


class Lookup(NamedTuple):
    """Rows of a table that a batch reads: ids int [...], and what each of them weighs in L2, f32 of
    the same shape.

    shared: all replicas read the same, a pool of negatives.
    order: of the ids, if it is known.
    """

    ids: tf.Tensor
    weight: tf.Tensor
    shared: bool = False
    order: Order | None = None


@dataclass(frozen=True)
class Start:
    """What the rows of a table start from: uniform within plus and minus a limit of each part.

    Args:
        parts: Width and limit of each part of a row; a part of limit 0 starts at 0.
    """

    parts: tuple[tuple[int, float], ...]
    seed: int = 0

    def __call__(self, shape: tuple[int, int], dtype: Any = None) -> tf.Tensor:
        limits = tf.constant([limit for width, limit in self.parts for _ in range(width)])
        return _uniform(tf.constant(shape), tf.constant([self.seed, 0]), limits)

    def get_config(self) -> dict[str, Any]:
        """As Keras' initializers have it."""
        return {"parts": self.parts, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Start":
        """As Keras' initializers have it."""
        return cls(**config)


# by itself each of its operations would keep a copy
@tf.function(autograph=False, reduce_retracing=True)
def _uniform(shape: tf.Tensor, seed: tf.Tensor, limits: tf.Tensor) -> tf.Tensor:
    return tf.random.stateless_uniform(shape, seed, -limits, limits)


def dot(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Products of rows: x [B, d] and z [B, N, d] or [N, d] -> f32 [B, N]."""
    if z.shape.rank == 3 and z.shape[1] == 1:
        alike = x.shape[0] == z.shape[0]
        one = _dot_one(x, z) if alike else tf.reduce_sum(tf.expand_dims(x, 1) * z, axis=2)
        return tf.cast(one, tf.float32)
    return tf.cast(
        tf.matmul(x, z, transpose_b=True) if z.shape.rank == 2 else tf.einsum("bd,bnd->bn", x, z),
        tf.float32,
    )


@tf.custom_gradient
def _dot_one(x: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, Any]:
    """Products of rows x [B, d] and z [B, 1, d] -> [B, 1]: B matrix products of 1 x d by d x 1
    would cost more, and by itself the gradient would spread a number over each row first.
    """

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * tf.squeeze(z, 1), tf.expand_dims(upstream * x, 1)

    return tf.reduce_sum(tf.expand_dims(x, 1) * z, axis=2), gradient


def lookup(table: tf.Variable | tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
    """Rows [..., width] at ids int32 [...], of which alone memory is read; tf.gather would read all
    of a MirroredVariable.

    A GradientTape must watch such a variable by name; it sees others by itself.
    """
    if isinstance(table, tf.distribute.DistributedValues):
        with contextlib.suppress(ValueError):  # across replicas it has no handle
            return tf.raw_ops.ResourceGather(resource=table.handle, indices=ids, dtype=table.dtype)
    return tf.nn.embedding_lookup(table, ids)


def rows_at(table: tf.Variable | tf.Tensor, ids: tf.Tensor | None) -> tf.Tensor:
    """As `lookup`; all rows where ids is None."""
    return tf.convert_to_tensor(table) if ids is None else lookup(table, ids)
