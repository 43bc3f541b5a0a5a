"""Raw ids, and lists of them, in the graph of the SavedModel."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data.features import NO_PRODUCT


def dtype(ids: np.ndarray) -> tf.DType:
    """Returns the type of raw ids in the SavedModel: int64 or string."""
    return tf.int64 if np.issubdtype(ids.dtype, np.integer) else tf.string


def variable(values: np.ndarray) -> tf.Variable:
    """Returns the values as a variable, which a SavedModel keeps outside of its graph."""
    return tf.Variable(values, trainable=False)


def constant(ids: np.ndarray) -> tf.Variable:
    """Returns raw ids as a variable on the CPU."""
    with tf.device("CPU:0"):  # strings live nowhere else
        return variable(_plain(ids))


def lookup(ids: np.ndarray, index: np.ndarray | None = None) -> tf.lookup.StaticHashTable:
    """raw id -> its position, or `index` in its place; -1 for any other id."""
    values = np.arange(len(ids)) if index is None else index
    pairs = tf.lookup.KeyValueTensorInitializer(
        tf.constant(_plain(ids)), tf.constant(values, tf.int32)
    )
    return tf.lookup.StaticHashTable(pairs, -1)


def _plain(ids: np.ndarray) -> np.ndarray:
    """As TensorFlow takes them.

    Texts one by one, since numpy's own text makes each as long as the longest.
    """
    return ids.astype(np.int64) if dtype(ids) == tf.int64 else ids.astype(object)


def padding(kind: tf.DType) -> tf.Tensor:
    """Returns what is no id of any data: the least whole number, or ""."""
    return tf.constant("" if kind == tf.string else NO_PRODUCT, kind)


def for_each(values: tf.Tensor, count: tf.Tensor, name: str) -> tf.Tensor:
    """[count, 1 or 0, X] -> [count or 0, X].

    A single row is everyone's; any other number of rows fails.
    """
    rows = tf.shape(values)[0]
    message = (
        f"{name}: expected a row for each of those asked for, one row for all of them, or "
        "none; rows, and how many are asked for:"
    )
    with tf.control_dependencies(
        [tf.debugging.Assert((rows <= 1) | (rows == count), [message, rows, count])]
    ):
        return tf.repeat(values, tf.where(rows == 1, count, 1), axis=0)


def alike(values: tf.Tensor, other: tf.Tensor, names: str) -> tf.Tensor:
    """Returns the values, where their shape is that of the other ones; else it fails."""
    same = tf.reduce_all(tf.equal(tf.shape(values), tf.shape(other)))
    shapes = [f"{names}: expected the same shape; got", tf.shape(values), tf.shape(other)]
    with tf.control_dependencies([tf.debugging.Assert(same, shapes)]):
        return tf.identity(values)


def hide(scores: tf.Tensor, pairs: tf.Tensor) -> tf.Tensor:
    """scores [B, P] with -inf at pairs int32 [n, 2]."""
    return tf.tensor_scatter_nd_update(scores, pairs, tf.fill(tf.shape(pairs)[:1], -np.inf))


def pairs(products: tf.Tensor) -> tf.Tensor:
    """products int32 [B or 0, X], -1 where there is none -> (row, product) int32 [n, 2]."""
    row = tf.cast(tf.where(products >= 0)[:, :1], tf.int32)
    return tf.concat([row, tf.boolean_mask(products, products >= 0)[:, None]], axis=1)


def is_last(products: tf.Tensor, count: int) -> tf.Tensor:
    """Returns which products of each list do not come again in it, bool [B, L]; products int32 [B,
    L], numbered from 0 to count - 1.
    """
    size, length = tf.shape(products)[0], tf.shape(products)[1]
    place = tf.broadcast_to(tf.range(length), [size, length])
    at = tf.range(size)[:, None] * count + products
    last = tf.math.unsorted_segment_max(tf.reshape(place, [-1]), tf.reshape(at, [-1]), size * count)
    return tf.equal(tf.gather(last, at), place)


class Untracked:
    """Keeps a Keras model out of a module's tracking.

    Saving it would trace its call with float ids.
    """

    def __init__(self, it: Any) -> None:
        self.it = it
