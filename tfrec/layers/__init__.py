"""The parts that the models share.

`products` is int32 [B, N] (several for each row), int32 [N] (the same for all rows) or None (every
product); what a user and the products give together is [B, N], or [B, P] for None, in float32 also
under mixed precision. A user's side is computed once. Axes come and go by expand_dims and squeeze:
`x[:, None]` has a gradient of several operations.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError
from tfrec.layers.features import FeatureEmbedding as FeatureEmbedding
from tfrec.layers.features import FeatureRows as FeatureRows
from tfrec.layers.features import FeatureTable as FeatureTable
from tfrec.layers.rows import START, Lookup, Start, dot, lookup, rows_at
from tfrec.layers.rows import Order as Order

Products: TypeAlias = tf.Tensor | None
Parts: TypeAlias = dict[str, tf.Tensor]
MOST = 100  # others of a user or product that `ImplicitFactors` counts
DAYS = 2**20  # more than any day's number


class Embedding(tf.keras.layers.Layer):
    """A table, read by row: only the rows asked for are touched.

    All that a model keeps of a user (of a product) can stand side by side in one row, read and
    updated at once: a step of ncf takes half as long as with six small tables. Widths
    {"factors": 50, "bias": 1} make rows of 51 numbers.

    A part starts uniformly in +-0.05; "bias" is one number, starts at 0, is free of L2, and is read
    as float32 also under mixed precision.

    Args:
        rows: Number of rows.
        widths: Of a row, or of each of its parts.
        side: Whose the rows are, "user" or "product": fold-in and the rows of those without
            training rows need it.

    Example:
        >>> users = tfrec.layers.Embedding(train.num_users, 32, side="user")
        >>> users(batch["user"]).shape
        TensorShape([1024, 32])
    """

    # what is read in place of the table, see Recommender.override_embeddings
    override: tf.Tensor | Parts | None = None

    def __init__(self, rows: int, widths: int | dict[str, int], side: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if side not in ("user", "product"):
            raise UsageError(f"side={side!r}: expected user or product.")
        self.side, self.single = side, isinstance(widths, int)
        self.widths = {"embedding": widths} if isinstance(widths, int) else widths
        limits = [0.0 if part == "bias" else START for part in self.widths]
        self.table_initializer = Start(tuple(zip(self.widths.values(), limits)))
        # autocast would read and cast the whole table under mixed precision
        self.table = self.add_weight(
            shape=(rows, sum(self.widths.values())),
            initializer=self.table_initializer,
            name="table",
            autocast=False,
        )

    def call(self, ids: tf.Tensor | None) -> Any:
        """Looks rows up.

        Args:
            ids: int32 [...]; None: all rows.

        Returns:
            [..., width], or where there are parts {part: [..., width], "bias": [...]}.
        """
        parts = self.parts(ids)
        return parts["embedding"] if self.single else parts

    def parts(self, ids: tf.Tensor | None) -> Parts:
        """As call, by part in any case."""
        table = self.table.value if self.override is None else self.override
        apart = (
            [rows_at(part, ids) for part in table.values()]
            if isinstance(table, dict)
            else self.split(rows_at(table, ids))
        )
        return {part: self._cast(part, values) for part, values in zip(self.widths, apart)}

    def split(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Rows [..., sum of the widths] -> [..., width] of each part."""
        return (
            [rows] if len(self.widths) == 1 else tf.split(rows, list(self.widths.values()), axis=-1)
        )

    def penalized(self) -> np.ndarray:
        """Returns which columns L2 is for, f32 [sum of the widths] of 0 and 1: all but the bias."""
        return np.repeat(
            [float(part != "bias") for part in self.widths], list(self.widths.values())
        ).astype(np.float32)

    def add(self, part: str, values: tf.Tensor) -> None:
        """Adds values [rows, width] to a part of the whole table."""
        names = list(self.widths)
        before = sum(self.widths[name] for name in names[: names.index(part)])
        after = sum(self.widths.values()) - before - self.widths[part]
        self.table.assign(
            self.table + tf.pad(tf.cast(values, self.table.dtype), [[0, 0], [before, after]])
        )

    def _cast(self, part: str, values: tf.Tensor) -> tf.Tensor:
        return tf.squeeze(values, -1) if part == "bias" else tf.cast(values, self.compute_dtype)


class ImplicitFactors(tf.keras.layers.Layer):
    """SVD++ implicit factors: which products a user has rated, or which users have rated a product,
    whatever the ratings.

        sum_{j in N(i)} w_j / sqrt|N(i)|

    w is a table of factors; N(i) are the others that i has training rows with, of more than `most`
    so many drawn at random. N follows from the data and is no weight: no checkpoint holds it.

    Args:
        train: The training rows.
        side: Whose factors they are, "user" or "product".
        dim: Width of w.
        most: How many others count at most.
    """

    finalized = False

    def __init__(
        self, train: Interactions, side: str, dim: int, most: int = MOST, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.side = side
        columns = train.columns()
        other = "product" if side == "user" else "user"
        sizes = {"user": train.num_users, "product": train.num_products}
        owner, partner = columns[side], columns[other]
        self.table_initializer = tf.keras.initializers.RandomUniform()
        self.table = self.add_weight(
            shape=(sizes[other], dim),
            initializer=self.table_initializer,
            name="table",
            autocast=False,
        )
        order = np.random.RandomState(0).permutation(len(owner))
        order = order[np.argsort(owner[order], kind="stable")]
        counts = np.bincount(owner, minlength=sizes[side])
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, counts = order[place < most], np.minimum(counts, most)
        self.longest = int(counts.max())
        with tf.device("CPU:0"):  # outside of any graph, so that none holds a copy as a constant
            self.of, self.owner = (tf.constant(ids[order], tf.int32) for ids in (partner, owner))
            self.size, self.begin = (
                tf.constant(counts, tf.int32),
                tf.constant(np.cumsum(counts) - counts, tf.int32),
            )

    def call(self, ids: tf.Tensor | None, without: tf.Tensor | None = None) -> tf.Tensor:
        """ids int32 [...] -> their sums [..., d]; None -> of all; 0 once it has settled.

        without int32, of the ids' rank, leaves a partner of each row out: a training row must not
        find itself in N, as a row that is tested does not. With ids of another rank, the same for
        all rows, nobody is left out.
        """
        if self.finalized:
            return tf.zeros([], self.compute_dtype)
        if ids is None:
            size = self.size
            total = tf.math.unsorted_segment_sum(
                lookup(self.table.value, self.of), self.owner, self.size.shape[0]
            )
        else:
            of, there = self._partners(ids, without)
            size, rows = tf.math.count_nonzero(there, axis=-1), lookup(self.table.value, of)
            total = tf.reduce_sum(tf.where(tf.expand_dims(there, -1), rows, 0), axis=-2)
        root = tf.sqrt(tf.cast(tf.maximum(size, 1), tf.float32))
        return tf.cast(total / tf.expand_dims(root, -1), self.compute_dtype)

    def lookups(self, of_owners: Lookup, without: tf.Tensor | None) -> Lookup:
        """Returns what `call` reads in training.

        The partners of an owner together weigh what it weighs, padding nothing.
        """
        of, there = self._partners(of_owners.ids, without)
        share = tf.cast(there, tf.float32) / tf.cast(
            tf.maximum(tf.math.count_nonzero(there, axis=-1, keepdims=True), 1), tf.float32
        )
        return Lookup(of, tf.expand_dims(of_owners.weight, -1) * share, of_owners.shared)

    def _partners(self, ids: tf.Tensor, without: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the partners of ids int32 [...], [..., longest], and which of them are no
        padding.
        """
        place = tf.range(self.longest)
        there = place < tf.expand_dims(tf.gather(self.size, ids), -1)
        at = tf.expand_dims(tf.gather(self.begin, ids), -1) + tf.where(there, place, 0)
        of = tf.gather(self.of, tf.minimum(at, self.of.shape[0] - 1))
        if without is not None and without.shape.rank == ids.shape.rank:
            there &= tf.not_equal(of, tf.expand_dims(without, -1))
        return of, there

    def finalize(self, table: Embedding, part: str) -> None:
        """Adds the sums to a part of the owners' table, once."""
        if not self.finalized:
            table.add(part, self(None))
        self.finalized = True


class UserDayBias(tf.keras.layers.Layer):
    """A bias for each day on which a user rated in the training rows, 0 for any other: people rate
    in sessions, each in one mood.

    Args:
        train: The training rows; they have timestamps.
    """

    def __init__(self, train: Interactions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        columns = train.columns()
        keys = np.unique(columns["user"].astype(np.int64) * DAYS + columns["day"])
        self.bias = self.add_weight(
            shape=(len(keys) + 1,), initializer="zeros", name="bias", autocast=False
        )
        with tf.device("CPU:0"):
            self.keys = tf.constant(keys)

    def call(self, user: tf.Tensor, day: tf.Tensor) -> tf.Tensor:
        """int32 [B], [B] -> f32 [B]."""
        key = tf.cast(user, tf.int64) * DAYS + tf.cast(day, tf.int64)
        at = tf.searchsorted(self.keys, key)
        known = tf.equal(tf.gather(self.keys, tf.minimum(at, self.keys.shape[0] - 1)), key)
        return tf.where(known, lookup(self.bias.value, at), 0.0)


FEW_UNITS = 32  # a layer of more is faster at once


class SplitDense(tf.keras.layers.Layer):
    """relu(x_u K_1 + z_p K_2 + b): a Dense layer over the concatenation [x_u, z_p], split in two.

    The split lets the user's part be computed once for all products, and the products' part
    once for all users. width: of the result, h; None: d / 2.
    """

    def __init__(self, dim: int, width: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden = tf.keras.layers.Dense(width or max(dim // 2, 1), name="hidden")
        self.hidden.build((None, 2 * dim))

    def call(self, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        """x [B, d] and z [B, N, d] or [N, d] -> [B, N, h]."""
        user, product = self._parts(x, z)
        return tf.nn.relu(tf.expand_dims(user, 1) + product)

    def weighted(self, x: tf.Tensor, z: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """x [B, d], z [N, d] or [B, N, d] and weights f32 [h] -> f32 [B, N]: the sum over the
        hidden units, each times its weight.

        Where all users meet the same products and units are few, one unit follows the other: that
        takes two thirds of the time on CPUs, and no [B, N, h] when it scores.
        """
        if z.shape.rank != 2 or self.hidden.units > FEW_UNITS:
            return tf.tensordot(tf.cast(self(x, z), tf.float32), weights, 1)
        user, product = (tf.unstack(tf.transpose(part)) for part in self._parts(x, z))
        units = (
            weight * tf.cast(tf.nn.relu(of_user[:, None] + of_product), tf.float32)
            for of_user, of_product, weight in zip(user, product, tf.unstack(weights), strict=True)
        )
        return sum(units, start=tf.zeros((), tf.float32))

    def _parts(self, x: tf.Tensor, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_user, of_product = tf.split(tf.cast(self.hidden.kernel, self.compute_dtype), 2)
        user = tf.matmul(x, of_user) + tf.cast(self.hidden.bias, self.compute_dtype)
        return user, tf.tensordot(z, of_product, 1)


def rowwise(network: Callable[[tf.Tensor], tf.Tensor], inputs: tf.Tensor) -> tf.Tensor:
    """Applies a network to each row of inputs, whatever axes stand before the last.

    A tf.keras.Sequential takes inputs of one rank only; products come as [B, N], [N] or all.

    Args:
        network: f32 [n, D] -> f32 [n, E].
        inputs: f32 [..., D].

    Returns:
        f32 [..., E].
    """
    outer = tf.shape(inputs)[:-1]
    found = network(tf.reshape(inputs, [-1, inputs.shape[-1]]))
    made = tf.reshape(found, tf.concat([outer, [found.shape[-1]]], 0))
    return tf.ensure_shape(made, [*inputs.shape[:-1], found.shape[-1]])


def pairs(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Puts the users' and the products' side beside each other, for a network over both.

    Args:
        x: f32 [B, d], of the users.
        z: f32 [B, N, e], or [N, e] for all users.

    Returns:
        f32 [B, N, d + e].

    Example:
        >>> both = tfrec.layers.pairs(self.users(batch["user"]), self.products(products))
        >>> return tfrec.layers.rowwise(self.network, both)[..., 0]
    """
    z = z[None] if z.shape.rank == 2 else z
    shape = tf.concat([tf.shape(x)[:1], tf.shape(z)[1:2]], 0)
    x = tf.broadcast_to(x[:, None], tf.concat([shape, [x.shape[-1]]], 0))
    z = tf.broadcast_to(z, tf.concat([shape, [z.shape[-1]]], 0))
    return tf.concat([x, z], axis=-1)


def cosine(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Cosines of rows: x [B, d] and z [B, N, d] or [N, d] -> f32 [B, N]. Like Keras', that of a row
    of zeros is 0.

    One scalar a row is computed, not two normalised copies.
    """
    return dot(x, z) * tf.expand_dims(_inverse_norm(x), 1) * _inverse_norm(z)


def _inverse_norm(rows: tf.Tensor) -> tf.Tensor:
    """1 / |row|, f32 [...] of [..., d]."""
    return tf.math.rsqrt(
        tf.maximum(tf.reduce_sum(tf.square(tf.cast(rows, tf.float32)), axis=-1), 1e-12)
    )
