"""Features of products and users: constant matrices, wide and sparse or narrow and dense."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfrec.data.sparse import SparseFeatures
from tfrec.errors import UsageError
from tfrec.layers.rows import START, Lookup, Start, dot, lookup, rows_at

ROWS_AT_ONCE = 2**14
PADDING = 2  # places a row and entry, at most
NARROW = 64  # columns: with so many or fewer a product of dense matrices is faster


class Entries(NamedTuple):
    """Entries of a sparse matrix: row int64 [n], ascending; column int64 [n]; value f32 [n], None
    where all are 1.
    """

    row: tf.Tensor
    column: tf.Tensor
    value: tf.Tensor | None


class FeatureRows:
    """Rows [..., F] of a FeatureTable, to be multiplied.

    Args:
        width: F.
        dense: f32 [..., F]; None: there are entries.
        entries: Their rows are counted over all axes before the last.
        outer: Sizes of these axes.
        each: How many entries each row has; 0: it varies.
        whole: Whether these are all rows of the table.
    """

    def __init__(
        self,
        width: int,
        dense: tf.Tensor | None = None,
        entries: Entries | None = None,
        outer: Sequence[Any] = (),
        each: int = 0,
        whole: bool = False,
    ) -> None:
        self.width, self._dense, self._entries = width, dense, entries
        self.outer, self.each, self.whole = list(outer), each, whole

    def dense(self) -> tf.Tensor:
        """Returns the rows, f32 [..., F]."""
        if self._dense is not None:
            return self._dense
        row, column, _ = self.entries
        size = [tf.cast(self.count, tf.int64), self.width]
        table = tf.scatter_nd(tf.stack([row, column], axis=1), self.values, size)
        return tf.reshape(table, [*self.outer, self.width])

    def times(self, kernel: tf.Variable | tf.Tensor, dtype: Any = tf.float32) -> tf.Tensor:
        """Multiplies the rows with a matrix.

        Only those of its rows whose features are there are read, and have a gradient.

        Args:
            kernel: f32 [F, d].
            dtype: Type of the result.

        Returns:
            [..., d].
        """
        if self._dense is not None:
            return tf.tensordot(tf.cast(self._dense, dtype), tf.cast(kernel, dtype), 1)
        if self.whole:
            full = tf.convert_to_tensor(kernel)
            return tf.cast(tf.sparse.sparse_dense_matmul(self.matrix, full), dtype)
        row, column, value = self.entries
        parts = lookup(kernel, column)
        if value is not None:
            parts *= value[:, None]
        if self.each:
            apart = tf.reshape(parts, [*self.outer, self.each, kernel.shape[-1]])
            found = tf.squeeze(apart, -2) if self.each == 1 else tf.reduce_sum(apart, axis=-2)
        else:  # of many numbers, in 32 bits
            found = tf.math.unsorted_segment_sum(parts, row, self.count)
            found = tf.reshape(found, [*self.outer, kernel.shape[-1]])
        return tf.cast(found, dtype)

    def dot(self, x: tf.Tensor) -> tf.Tensor:
        """Products of rows: x f32 [B, F], and these [B, N, F] or [N, F] -> f32 [B, N]."""
        if self._dense is not None:
            return dot(x, self._dense)
        if self.whole:
            return tf.transpose(tf.sparse.sparse_dense_matmul(self.matrix, x, adjoint_b=True))
        row, column, _ = self.entries
        if len(self.outer) == 1:
            parts = tf.gather(tf.transpose(x), column) * self.values[:, None]
            return tf.transpose(tf.math.unsorted_segment_sum(parts, row, self.count))
        user = row // tf.cast(self.outer[1], tf.int64)
        parts = tf.gather_nd(x, tf.stack([user, column], axis=1)) * self.values
        return tf.reshape(tf.math.unsorted_segment_sum(parts, row, self.count), self.outer)

    def weighted_sum(self, weights: tf.Tensor) -> tf.Tensor:
        """Sums all N rows of the table, each times its weight: f32 [B, N] -> f32 [B, F]."""
        if self._dense is not None:
            return tf.matmul(weights, self._dense)
        found = tf.sparse.sparse_dense_matmul(self.matrix, weights, adjoint_a=True, adjoint_b=True)
        return tf.transpose(found)

    @property
    def entries(self) -> Entries:
        """Returns what is not 0."""
        assert self._entries is not None
        return self._entries

    @property
    def values(self) -> tf.Tensor:
        """Returns the values of the entries, f32 [n]."""
        row, _, value = self.entries
        return tf.ones(tf.shape(row)) if value is None else value

    @property
    def count(self) -> tf.Tensor:
        """Returns the number of rows, int32 []."""
        return tf.reduce_prod(self.outer)

    @property
    def matrix(self) -> tf.SparseTensor:
        """Returns all rows."""
        row, column, _ = self.entries
        places = tf.stack([row, column], axis=1)
        return tf.SparseTensor(places, self.values, [self.outer[0], self.width])


class FeatureTable(tf.keras.layers.Layer):
    """The features of products, or of users: a constant matrix that models multiply.

    Up to 64 columns it is a dense weight. A wider one is kept by entries, so that memory and time
    grow with these: as many for each row, if at most half of them are padding of value 0, which is
    faster; else each row's, one row after the other.

    Args:
        features: [N, F], such as train.catalog.features.
        side: Whose they are, "user" or "product".

    Example:
        >>> features = tfrec.layers.FeatureTable(train.catalog.features, side="product")
        >>> embed = tfrec.layers.FeatureEmbedding(features, 32)
        >>> embed(batch["product"]).shape
        TensorShape([1024, 32])
    """

    def __init__(self, features: SparseFeatures, side: str, **kwargs: Any) -> None:
        super().__init__(trainable=False, **kwargs)
        self.side = side
        self.rows, self.width = features.shape
        self.narrow = self.width <= NARROW
        if self.narrow:
            self.table = self._constant("table", features.dense())
            return
        longest = int(np.diff(features.begins).max(initial=0))
        self.each = longest if self.rows * longest <= PADDING * len(features.values) else 0
        # int64: a GPU leaves whole numbers of 32 bits to the CPU
        self.column = self._constant("column", self._laid_out(features, features.columns, np.int64))
        values = self._laid_out(features, features.values, np.float32)
        self.value = None if (values == 1).all() else self._constant("value", values)
        if not self.each:
            self.begins = self._constant("begins", features.begins.astype(np.int64))

    def call(self, ids: tf.Tensor | None) -> FeatureRows:
        """Returns the rows at ids int32 [...]; None: all of them."""
        if self.narrow:
            return FeatureRows(self.width, rows_at(self.table.value, ids))
        if ids is None:
            sizes = self.each
            if not sizes:
                begins = tf.convert_to_tensor(self.begins.value)
                sizes = begins[1:] - begins[:-1]
            entries = self._entries(tf.repeat(tf.range(self.rows, dtype=tf.int64), sizes), None)
            return FeatureRows(self.width, None, entries, [self.rows], self.each, whole=True)
        known = zip(ids.shape.as_list(), tf.unstack(tf.shape(ids)))
        outer = [dynamic if static is None else static for static, dynamic in known]
        flat = tf.reshape(ids, [-1])
        if self.each:
            row = tf.repeat(tf.range(tf.size(flat, tf.int64)), self.each)
            return FeatureRows(self.width, None, self._entries(row, flat), outer, self.each)
        begin, end = (lookup(self.begins.value, at) for at in (flat, flat + 1))
        row = tf.repeat(tf.range(tf.size(flat, tf.int64)), end - begin)
        before = tf.cumsum(end - begin, exclusive=True)
        at = tf.range(tf.size(row, tf.int64)) + tf.gather(begin - before, row)
        return FeatureRows(self.width, None, self._entries(row, at), outer)

    def assign(self, features: SparseFeatures) -> None:
        """Sets the values of a matrix with the same entries.

        Raises:
            UsageError: The entries are others.
        """
        if self.narrow:
            self.table.assign(features.dense())
            return
        columns = self._laid_out(features, features.columns, np.int64)
        values = self._laid_out(features, features.values, np.float32)
        alike = np.array_equal(columns, self.column.numpy())
        if self.value is not None and alike:
            self.value.assign(values)
        elif not (alike and (values == 1).all()):
            raise UsageError(
                "fit_closed_form: these are not the rows that the model was made for. Make one for "
                "them by from_data."
            )

    def _entries(self, row: tf.Tensor, at: tf.Tensor | None) -> Entries:
        column = tf.reshape(rows_at(self.column.value, at), [-1])
        if self.value is None:
            return Entries(row, column, None)
        return Entries(row, column, tf.reshape(rows_at(self.value.value, at), [-1]))

    def _laid_out(self, features: SparseFeatures, values: np.ndarray, dtype: Any) -> np.ndarray:
        """Returns what the entries have [n], or with padding [N, each]."""
        if not self.each:
            return values.astype(dtype)
        sizes = np.diff(features.begins)
        made = np.zeros((self.rows, max(self.each, sizes.max(initial=0))), dtype)
        made[np.arange(made.shape[1]) < sizes[:, None]] = values
        return made

    def _constant(self, name: str, values: np.ndarray) -> tf.keras.Variable:
        return self.add_weight(
            shape=values.shape,
            initializer=lambda shape, dtype: tf.constant(values, dtype),
            dtype=values.dtype.name,
            trainable=False,
            name=name,
            autocast=False,
        )


class FeatureEmbedding(tf.keras.layers.Layer):
    """f K: of each product (user) the sum of its features' rows of a table K, each times the
    feature's value.

    Widths {"factors": 50, "hidden": 16} make rows of 66 numbers, looked up at once.

    Args:
        features: The table of features f.
        widths: Of a row of K, or of each of its parts.
        limits: A part starts uniformly within plus and minus so much; 0.05 where it is not there.
        biased: A part to which a bias is added, of all the same.
    """

    # the sums of all, f32 [N, sum of the widths], where they are known
    override: tf.Tensor | None = None

    def __init__(
        self,
        features: FeatureTable,
        widths: int | dict[str, int],
        limits: dict[str, float] | None = None,
        biased: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features, self.single = features, isinstance(widths, int)
        self.widths = {"embedding": widths} if isinstance(widths, int) else widths
        limits = dict.fromkeys(self.widths, START) | (limits or {})
        self.kernel_initializer = Start(tuple(zip(self.widths.values(), limits.values())))
        self.kernel = self.add_weight(
            shape=(features.width, sum(self.widths.values())),
            initializer=self.kernel_initializer,
            name="kernel",
            autocast=False,  # which would read all of it
        )
        self.biased = biased
        if biased:
            self.bias = self.add_weight(
                shape=(self.widths[biased],), initializer="zeros", name="bias", autocast=False
            )

    def call(self, ids: tf.Tensor | None) -> Any:
        """Returns the sums at ids int32 [...], of each part [..., width]; None: of all."""
        if self.override is not None:
            sums = tf.cast(rows_at(self.override, ids), self.compute_dtype)
        else:
            sums = self.features(ids).times(self.kernel.value, self.compute_dtype)
        parts = dict(zip(self.widths, tf.split(sums, list(self.widths.values()), axis=-1)))
        if self.biased:
            parts[self.biased] += tf.cast(self.bias, self.compute_dtype)
        return parts["embedding"] if self.single else parts

    def lookups(self, of_owners: Lookup) -> Lookup:
        """Returns which rows of K are read for products (users); there is no L2 on them."""
        column = self.features(of_owners.ids).entries.column
        return Lookup(column, tf.zeros(tf.shape(column)), of_owners.shared)

    def sums(self) -> np.ndarray:
        """Returns what `override` may be, f32 [N, sum of the widths]."""
        made = np.empty((self.features.rows, self.kernel.shape[1]), np.float32)
        for begin in range(0, len(made), ROWS_AT_ONCE):
            rows = self.features(tf.range(begin, min(begin + ROWS_AT_ONCE, len(made))))
            made[begin : begin + ROWS_AT_ONCE] = rows.times(self.kernel.value)
        return made
