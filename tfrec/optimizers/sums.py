"""Sums of a gradient's rows: of a table that a batch looks up, each touched row once."""

from typing import TypeAlias

import tensorflow as tf

from tfrec.layers import Lookup, Order

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
Weights: TypeAlias = tf.IndexedSlices | None


def order_of(gradient: Gradient, lookups: list[Lookup]) -> Order | None:
    """Returns the order of a gradient's rows, where they are those of a lookup that tells it."""
    if not isinstance(gradient, tf.IndexedSlices) or len(lookups) != 1:
        return None
    ids, order = lookups[0].ids, lookups[0].order
    return order if order is not None and _same(gradient.indices, ids) else None


def _same(one: tf.Tensor, other: tf.Tensor) -> bool:
    """Returns whether two tensors of a graph hold the same numbers, whatever their shapes."""
    one, other = _source(one), _source(other)
    if one is other:
        return True
    a, b = one.op, other.op
    if a.type != "ConcatV2" or b.type != "ConcatV2" or len(a.inputs) != len(b.inputs):
        return False
    alike = [tf.get_static_value(op.inputs[-1]) for op in (a, b)]
    shapes = [[part.shape for part in op.inputs[:-1]] for op in (a, b)]
    known = all(shape.is_fully_defined() for shape in shapes[0])
    laid_alike = alike[0] == alike[1] and known and shapes[0] == shapes[1]
    return laid_alike and all(map(_same, a.inputs[:-1], b.inputs[:-1]))


def _source(tensor: tf.Tensor) -> tf.Tensor:
    """Returns what a tensor was before it was given another shape."""
    while tensor.op.type in ("Reshape", "ExpandDims", "Squeeze", "Identity"):
        tensor = tensor.op.inputs[0]
    return tensor


def in_full(gradient: tf.IndexedSlices, order: Order, rows: int) -> tf.Tensor:
    """Returns the gradient of all rows of a table."""
    of_rows = tf.math.segment_sum(order.sort(gradient.values), order.sort(gradient.indices))
    behind = rows - tf.shape(of_rows)[0]
    padded = tf.pad(of_rows, [[0, behind]] + [[0, 0]] * (of_rows.shape.rank - 1))
    return tf.ensure_shape(padded, [rows, *of_rows.shape[1:]])


def dedupe(
    gradient: tf.IndexedSlices, weight: Weights = None, order: Order | None = None
) -> tuple[tf.IndexedSlices, Weights]:
    """Returns the same gradient with each row once, and the sum of the weights of each of these
    rows.

    order: of the gradient's rows and of the weights, if it is known.
    """
    if order:
        rows = order.ids(gradient.indices)
        of_rows = None if weight is None else tf.IndexedSlices(order.sums(weight.values), rows)
        return tf.IndexedSlices(order.sums(gradient.values), rows), of_rows
    rows, position = tf.unique(gradient.indices)
    count = tf.shape(rows)[0]
    summed = tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, position, count), rows)
    if weight is None:
        return summed, None
    at = _positions(rows, position, gradient.indices, weight.indices)
    return summed, tf.IndexedSlices(tf.math.unsorted_segment_sum(weight.values, at, count), rows)


def _positions(
    rows: tf.Tensor, position: tf.Tensor, indices: tf.Tensor, ids: tf.Tensor
) -> tf.Tensor:
    """Returns where each of the ids [n] stands in rows [K] = unique(indices), -1 where it does not.

    Position: where the indices stand.
    """

    def found() -> tf.Tensor:
        _, at = tf.unique(
            tf.concat([rows, ids], 0)
        )  # the rows come first, so they keep their places
        at = at[tf.shape(rows)[0] :]
        return tf.where(at < tf.shape(rows)[0], at, -1)

    if not indices.shape.is_compatible_with(ids.shape):
        return found()

    def equal() -> tf.Tensor:
        return tf.reduce_all(tf.equal(indices, ids))

    same = (
        equal()
        if ids.shape.is_fully_defined() and indices.shape.is_fully_defined()
        else tf.cond(tf.equal(tf.size(indices), tf.size(ids)), equal, lambda: False)
    )
    return tf.cond(
        same, lambda: position, found
    )  # a table that is looked up once has the ids themselves as indices


def together(lookups: list[Lookup]) -> tf.IndexedSlices:
    """Returns the weights of a table's lookups, f32 [n] at ids int [n]."""
    ids = [tf.reshape(each.ids, [-1]) for each in lookups]
    return tf.IndexedSlices(
        tf.concat([tf.reshape(each.weight, [-1]) for each in lookups], 0), tf.concat(ids, 0)
    )
