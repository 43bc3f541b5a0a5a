"""Gradients as one vector: each tensor that crosses between processes costs some hundred
microseconds, whatever its size.
"""

from collections.abc import Sequence
from typing import TypeAlias

import tensorflow as tf

Value: TypeAlias = tf.Tensor | tf.IndexedSlices


def packed(values: Sequence[Value]) -> tf.Tensor:
    """Returns the numbers of values f32 as one vector f32 [n]; ids stand there by their bits."""
    unknown = [tf.size(each.indices) for each in values if _varies(each)]
    parts = [tf.bitcast(tf.stack(unknown), tf.float32)] if unknown else []
    for each in values:
        if isinstance(each, tf.IndexedSlices):
            parts.append(tf.bitcast(tf.cast(each.indices, tf.int32), tf.float32))
            each = each.values
        parts.append(tf.reshape(each, [-1]))
    return tf.concat(parts, axis=0)


def unpacked(message: tf.Tensor, like: Sequence[Value]) -> list[Value]:
    """Returns the values of a message f32 [n], which have the shapes and types of these."""
    count = sum(map(_varies, like))
    known = iter(tf.unstack(tf.bitcast(message[:count], tf.int32), num=count))
    sizes = []
    for each in like:
        if isinstance(each, tf.IndexedSlices):
            rows = next(known) if _varies(each) else each.indices.shape[0]
            sizes += [rows, rows * each.values.shape[1:].num_elements()]
        else:
            sizes.append(each.shape.num_elements())
    parts = iter(tf.split(message[count:], tf.stack(sizes)))
    found: list[Value] = []
    for each in like:
        if isinstance(each, tf.IndexedSlices):
            ids = tf.cast(tf.bitcast(next(parts), tf.int32), each.indices.dtype)
            found.append(tf.IndexedSlices(_shaped(next(parts), each.values), ids))
        else:
            found.append(_shaped(next(parts), each))
    return found


def _varies(value: Value) -> bool:
    """Returns whether it is unknown how many rows there are."""
    return isinstance(value, tf.IndexedSlices) and value.indices.shape[0] is None


def _shaped(numbers: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    sizes = [-1 if size is None else size for size in like.shape]
    return tf.ensure_shape(tf.reshape(numbers, sizes), like.shape)
