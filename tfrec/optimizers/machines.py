"""What crosses between machines in a step: one message of all that the replicas have to sum. The
sum of one IndexedSlices alone would take three collectives.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrec.optimizers.messages import Value, packed, unpacked

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
        form[:] = [function(*args)]
        values = tf.nest.flatten(form[0])
        message = packed([each for each in values if not _is_large(each)])
        return message, [each for each in values if _is_large(each)]

    message, large = strategy.run(replica, args=args)
    rows = tf.reshape(strategy.gather(message, axis=0), [strategy.num_replicas_in_sync, -1])
    like = tf.nest.flatten(form[0])
    small = [each for each in like if not _is_large(each)]
    of_replicas = [unpacked(row, small) for row in tf.unstack(rows)]
    of_small = iter([_sum(list(values)) for values in zip(*of_replicas)])
    of_large = iter(
        [strategy.reduce(tf.distribute.ReduceOp.SUM, each, axis=None) for each in large]
    )
    found = [next(of_large if _is_large(each) else of_small) for each in like]
    return tf.nest.pack_sequence_as(form[0], found)


def _sum(values: list[Value]) -> Value:
    if not isinstance(values[0], tf.IndexedSlices):
        return tf.add_n(values)
    ids = tf.concat([each.indices for each in values], axis=0)
    return tf.IndexedSlices(tf.concat([each.values for each in values], axis=0), ids)


def _is_large(value: Value) -> bool:
    dense = isinstance(value, tf.Tensor)
    return dense and value.shape.num_elements() > MOST_IN_MESSAGE
