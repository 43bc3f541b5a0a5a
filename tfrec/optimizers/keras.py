"""Optimizers of tf.keras, and what they lack: a row that a batch reads twice is moved once."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrec.errors import UsageError
from tfrec.layers import lookup
from tfrec.optimizers.sums import Gradient, dedupe
from tfrec.optimizers.updates import Optimizer, OptimizerSettings, Shares


def merge_rows(gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
    """Returns gradients in which each row of a table stands once, with the sum of its parts.

    tf.keras.optimizers.Adam and Adagrad take a row that stands there twice for two rows, which
    gives another result than the dense gradient.

    Args:
        gradients: As tape.gradient returns them.

    Example:
        >>> gradients = tape.gradient(loss, model.trainable_variables)
        >>> gradients = tfrec.optimizers.merge_rows(gradients)
        >>> optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    """

    def merged(gradient: Gradient | None) -> Gradient | None:
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient
        rows, _ = dedupe(gradient)
        return tf.IndexedSlices(rows.values, rows.indices, gradient.dense_shape)

    return [merged(gradient) for gradient in gradients]


class KerasOptimizer(Optimizer):
    """A tf.keras.optimizers one, as a Trainer uses it: on one device, its repeated rows merged.

    Args:
        optimizer: Any of them; its own clipping and schedule hold.

    Raises:
        UsageError: The strategy has several devices, whose gradients Keras would sum by itself.
    """

    def __init__(
        self, optimizer: tf.keras.optimizers.Optimizer, strategy: tf.distribute.Strategy
    ) -> None:
        super().__init__()
        cluster = (
            tf.distribute.ParameterServerStrategy,
            tf.distribute.MultiWorkerMirroredStrategy,
        )
        if strategy.num_replicas_in_sync > 1 or isinstance(strategy, cluster):
            kind = type(optimizer).__name__
            raise UsageError(
                f"optimizer={kind}: those of tf.keras are taken on one device only. "
                f"tfrec.optimizers.{kind} runs everywhere, if there is one of the name."
            )
        self.settings = OptimizerSettings(sparse_updates="always")
        self.optimizer = optimizer

    def build(
        self, variables: dict[str, tf.Variable], penalized: Any = None, l2: float = 0.0
    ) -> None:
        """Makes the optimizer's variables, as Optimizer.build."""
        self.penalized, self.l2 = penalized or {}, l2
        self.optimizer.build(list(variables.values()))

    def variables(self) -> dict[str, tf.Variable]:
        """Returns every variable of the optimizer, by its place."""
        return {f"keras/{at}": each.value for at, each in enumerate(self.optimizer.variables)}

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate now, f32 of the shape of step."""
        rate = tf.cast(tf.convert_to_tensor(self.optimizer.learning_rate), tf.float32)
        return tf.fill(tf.shape(step), rate)

    def apply(
        self,
        strategy: tf.distribute.Strategy,
        shares: Shares,
        variables: dict[str, tf.Variable],
        step: tf.Tensor,
        want_norm: tf.Tensor,
    ) -> tf.Tensor:
        """As Optimizer.apply, whose parameters it has."""
        gradients, weights = shares
        found = []
        for name, gradient in gradients.items():
            if isinstance(gradient, tf.IndexedSlices):
                values, rows = gradient.values, gradient.indices
                if name in weights:
                    before = lookup(variables[name], rows)
                    values += self._penalty(name, weights[name].values, before)
                gradient = tf.IndexedSlices(
                    values, rows, tf.constant(variables[name].shape.as_list())
                )
            found.append(gradient)
        self.optimizer.apply(found, [variables[name] for name in gradients])
        values = [g.values if isinstance(g, tf.IndexedSlices) else g for g in found]
        return tf.cond(want_norm, lambda: tf.linalg.global_norm(values), lambda: 0.0)
