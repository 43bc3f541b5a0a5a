"""What crosses between machines in a step: one message of all that the replicas have to sum.

A collective between two processes takes longer than a small model's step, and the sum of one
IndexedSlices takes three of them.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# numbers: a larger dense gradient is summed by itself, as a message brings it from each machine
MOST_IN_MESSAGE = 100_000


def summed(strategy: tf.distribute.Strategy, function: Callable[..., Any], args: tuple) -> Any:
    """Runs a function on each replica, in cross-replica context, and returns the replicas' sum.

    Args:
        strategy: MultiWorkerMirroredStrategy.
        function: Returns a nest of tensors f32 and tf.IndexedSlices, of shapes that are known.
        args: Values of each replica's, as strategy.run takes them.

    Returns:
        The nest; of IndexedSlices the replicas' rows stand one behind the other.
    """
    form: list[Any] = []

    def replica(*args: Any) -> tuple[tf.Tensor, list[tf.Tensor]]:
        nest = function(*args)
        form[:] = [nest]
        values = tf.nest.flatten(nest)
        message = [part for each in values if not _is_large(each) for part in _parts(each)]
        return tf.concat(message, axis=0), [each for each in values if _is_large(each)]

    message, large = strategy.run(replica, args=args)
    rows = tf.reshape(strategy.gather(message, axis=0), [strategy.num_replicas_in_sync, -1])
    by_itself = [strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None) for each in large]
    return tf.nest.pack_sequence_as(form[0], _read(rows, tf.nest.flatten(form[0]), by_itself))


def _read(rows: tf.Tensor, like: list[Any], large: list[tf.Tensor]) -> list[Any]:
    """Returns the sums of the messages, f32 [replicas, n], of values that looked `like` these."""
    sizes = [size for each in like if not _is_large(each) for size in _sizes(each)]
    parts, of_large = iter(tf.split(rows, sizes, axis=1)), iter(large)
    found: list[Any] = []
    for each in like:
        if _is_large(each):
            found.append(next(of_large))
        elif isinstance(each, tf.IndexedSlices):
            ids = tf.reshape(tf.bitcast(next(parts), tf.int32), [-1])
            values = tf.reshape(next(parts), [-1, *each.values.shape[1:]])
            found.append(tf.IndexedSlices(values, tf.cast(ids, each.indices.dtype)))
        else:
            found.append(tf.reshape(tf.reduce_sum(next(parts), axis=0), each.shape))
    return found


def _parts(value: Any) -> list[tf.Tensor]:
    """Returns the vectors f32 that stand in a message for a value."""
    if isinstance(value, tf.IndexedSlices):
        ids = tf.bitcast(tf.cast(value.indices, tf.int32), tf.float32)
        return [ids, tf.reshape(value.values, [-1])]
    return [tf.reshape(value, [-1])]


def _sizes(value: Any) -> list[int]:
    """Returns the lengths of `_parts`."""
    if isinstance(value, tf.IndexedSlices):
        return [value.indices.shape[0], value.values.shape.num_elements()]
    return [value.shape.num_elements()]


def _is_large(value: Any) -> bool:
    dense = isinstance(value, tf.Tensor)
    return dense and value.shape.num_elements() > MOST_IN_MESSAGE
