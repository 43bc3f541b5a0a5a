"""From gradients to updates: what every optimiser does alike, on raw tf.Variables.

The replicas' gradients are summed, clipped, and given to a rule of optimizers.py in one of two forms. Dense: the gradient of the whole
variable. Sparse: the gradient of a lookup (IndexedSlices), merged by row; only the rows that the batch touched are read and written.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from tfrec.models.layers import lookup

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
# auto: a table takes the dense form if it has fewer rows than so many times the batch's lookups, or so few numbers that the sparse form's
# thirty or so small operations cost more than a pass over it
DENSE_BELOW, SMALL = 4, 20_000


class Optimizer:
    """What the optimisers share: which form a table takes, clipping, L2, and the sum over replicas.

    Args:
        learning_rate: step int64 [...] -> f32 [...], or f32 [] where it does not change.
        sparse_updates: auto | always | never.
        l2: added to the gradient of each table row that the batch touches, as l2 / rows of the batch * row: in units of one row's loss.
        clip_norm: the summed gradient is scaled down to this global norm (0: never).
        weight_decay: AdamW alone has it.
    """

    slots: tuple[tuple[str, float], ...] = ()  # name, and the value that it starts at
    makes_up = False  # the sparse form makes up for the steps that a row missed

    def __init__(
        self,
        learning_rate: Callable[[tf.Tensor], tf.Tensor],
        sparse_updates: str = "auto",
        l2: float = 0.0,
        clip_norm: float = 0.0,
        weight_decay: float = 0.004,
    ) -> None:
        self.learning_rate, self.sparse_updates, self.l2, self.clip_norm = learning_rate, sparse_updates, l2, clip_norm
        self.weight_decay = weight_decay
        self.state: dict[str, dict[str, tf.Variable]] = {}
        self.forms: dict[str, str] = {}  # variable -> dense | sparse, decided when the step is traced

    def build(self, variables: dict[str, tf.Variable]) -> None:
        """Makes the slots of the variables; call it in the strategy's scope."""
        for name, variable in variables.items():
            self.state[name] = self.make_slots(variable)
            if self.makes_up and self.sparse_updates != "never" and variable.shape.rank:  # whether it is a table shows in its gradient
                self.state[name]["last_step"] = like(variable, variable.shape[:1], 0, tf.int64, "last_step")

    def variables(self) -> dict[str, tf.Variable]:
        """Every slot by path."""
        return {f"{name}/{slot}": variable for name, slots in self.state.items() for slot, variable in slots.items()}

    def merge(
        self, strategy: tf.distribute.Strategy, gradients: dict[str, Gradient], variables: dict[str, tf.Variable]
    ) -> dict[str, Gradient]:
        """A replica's gradients as they cross to the others: of a table that takes the sparse form, each touched row once.

        Between machines rows cross as the batch looked them up: a collective in a loop must have one shape in all steps.
        """
        for name, gradient in gradients.items():
            self.forms[name] = self._form(variables[name], gradient, strategy.num_replicas_in_sync)
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return gradients
        return {name: merge(gradient) if self.forms[name] == "sparse" else gradient for name, gradient in gradients.items()}

    def apply(
        self,
        strategy: tf.distribute.Strategy,
        gradients: dict[str, Any],
        variables: dict[str, tf.Variable],
        step: tf.Tensor,
        rows: tf.Tensor,
        want_norm: tf.Tensor,
    ) -> tf.Tensor:
        """One update, in cross-replica context.

        Args:
            gradients: each replica's share of the gradient, from `merge`, as strategy.run returns it; variables without one are left
                alone.
            step: int64 [], the number of updates made before this one.
            rows: f32 [], how many rows the global batch has, without its padding.
            want_norm: bool []: return the summed gradient's global norm, f32 [] (else 0: nobody looks at it in most steps).
        """
        names = list(gradients)
        summed, alone = [gradients[name] for name in names], strategy.num_replicas_in_sync == 1
        if not alone:
            pairs = [(gradients[name], variables[name]) for name in names]
            summed = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        one_copy = [strategy.experimental_local_results(gradient)[0] for gradient in summed]

        def global_norm() -> tf.Tensor:
            return tf.linalg.global_norm([merge(g).values if isinstance(g, tf.IndexedSlices) else g for g in one_copy])

        norm = global_norm() if self.clip_norm else tf.cond(want_norm, global_norm, lambda: 0.0)
        clip = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, 1e-12)) if self.clip_norm else None
        rate, l2 = self.learning_rate(step), self.l2 / rows
        in_step = not isinstance(strategy, tf.distribute.ParameterServerStrategy)
        for name, gradient in zip(names, summed):

            def update(variable: tf.Variable, gradient: Gradient, slots: dict, name: str = name) -> None:
                gradient = merge(gradient) if self.forms[name] == "sparse" and not alone else gradient
                self._update(name, variable, gradient, slots, rate, step, l2, clip, in_step)

            strategy.extended.update(variables[name], update, args=(gradient, self.state[name]), group=True)
        return norm

    def _update(
        self,
        name: str,
        variable: tf.Variable,
        gradient: Gradient,
        slots: dict,
        rate: tf.Tensor,
        step: tf.Tensor,
        l2: tf.Tensor,
        clip: tf.Tensor | None,
        in_step: bool,
    ) -> None:
        scale = 1.0 if clip is None else clip
        if not isinstance(gradient, tf.IndexedSlices):
            self.dense(variable, gradient * scale, slots, rate, step)
        elif self.forms[name] == "dense":
            full = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0]) * scale
            if self.l2:
                ones = tf.ones_like(gradient.indices, variable.dtype)
                touched = tf.minimum(tf.math.unsorted_segment_sum(ones, gradient.indices, variable.shape[0]), 1)
                full += l2 * along_rows(touched, variable) * variable
            self.dense(variable, full, slots, rate, step)
        else:
            touched, values = gradient.indices, gradient.values * scale
            before = lookup(variable, touched)
            if self.l2:
                values += l2 * before
            put(variable, touched, self.sparse(before, values, touched, slots, rate, step))
            if self.makes_up:
                last = tf.fill(tf.shape(touched), step + 1)
                # a worker that is behind must not let others make up again for steps that a row did not miss
                put(slots["last_step"], touched, last if in_step else tf.maximum(last, lookup(slots["last_step"], touched)))

    def _form(self, variable: tf.Variable, share: Gradient, replicas: int) -> str:
        """dense or sparse, from the shape of one replica's share and their number, so that this number does not matter."""
        if not isinstance(share, tf.IndexedSlices) or self.sparse_updates == "never":
            return "dense"
        lookups = share.indices.shape[0]
        if self.sparse_updates == "always" or lookups is None:
            return "sparse"
        small = variable.shape[0] < DENSE_BELOW * lookups * replicas or variable.shape.num_elements() < SMALL
        return "dense" if small else "sparse"

    def missed(self, slots: dict, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """How many steps each of the rows has missed since it was last touched, f32 [K].

        Workers of a parameter server may be ahead of this one: then none.
        """
        return tf.cast(tf.maximum(step - lookup(slots["last_step"], rows), 0), tf.float32)

    def make_slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """The slots of one variable, by name."""
        return {slot: like(variable, variable.shape, start, variable.dtype, slot) for slot, start in self.slots}

    def dense(self, variable: tf.Variable, gradient: tf.Tensor, slots: dict, rate: tf.Tensor, step: tf.Tensor) -> None:
        """gradient: of the variable's shape."""
        raise NotImplementedError

    def sparse(self, before: tf.Tensor, gradient: tf.Tensor, rows: tf.Tensor, slots: dict, rate: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """What becomes of the table's rows int [K], each there once, from `before` and their gradient, both [K, ...]; updates the slots."""
        raise NotImplementedError


def merge(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with each row once."""
    rows, position = tf.unique(gradient.indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, position, tf.shape(rows)[0]), rows)


def put(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    """Sets the rows int [K] to values [K, ...]; adding to them in place would take six times as long."""
    variable.scatter_update(tf.IndexedSlices(values, rows))


def along_rows(values: tf.Tensor, rows: tf.Tensor | tf.Variable) -> tf.Tensor:
    """values [K] -> [K, 1, ...], to be multiplied with rows [K, ...]."""
    return tf.reshape(values, [-1] + [1] * (rows.shape.rank - 1))


def like(variable: tf.Variable, shape: Any, value: float, dtype: tf.DType, name: str) -> tf.Variable:
    """A slot that lives where its variable does."""
    with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
        return tf.Variable(tf.fill(shape, tf.constant(value, dtype)), trainable=False, name=name)
