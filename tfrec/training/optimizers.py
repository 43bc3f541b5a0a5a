"""Optimisers on raw tf.Variables, in two forms.

Dense: TensorFlow's fused kernels, Keras' semantics. Sparse: the gradient of a lookup (IndexedSlices) is merged by row, and only the
rows that the batch touched are read and written.

SGD and Adagrad agree in both forms. Sparse Adam decays a row's moments by the steps that it missed before it adds the new gradient,
so a row that is touched in every step sees dense Adam exactly; what it leaves out is that dense Adam goes on moving a row by its
momentum in the steps that do not touch it.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices
DENSE_BELOW = 4  # auto: a table of fewer rows than this many times the batch's lookups takes the dense form


class Optimizer:
    """What the optimisers share: which form a table takes, clipping, L2, and the sum over replicas.

    Args:
        learning_rate: step int64 [] -> f32 [].
        sparse_updates: auto | always | never.
        l2: added to the gradient of each table row that the batch touches, as l2 / rows of the batch * row: in units of one row's loss.
        clip_norm: the summed gradient is scaled down to this global norm (0: never).
    """

    slots: tuple[str, ...] = ()

    def __init__(
        self,
        learning_rate: Callable[[tf.Tensor], tf.Tensor],
        sparse_updates: str = "auto",
        l2: float = 0.0,
        clip_norm: float = 0.0,
    ) -> None:
        self.learning_rate, self.sparse_updates, self.l2, self.clip_norm = learning_rate, sparse_updates, l2, clip_norm
        self.state: dict[str, dict[str, tf.Variable]] = {}
        self.forms: dict[str, str] = {}  # variable -> dense | sparse, decided when the step is traced

    def build(self, variables: dict[str, tf.Variable]) -> None:
        """Makes the slots of the variables; call it in the strategy's scope."""
        for name, variable in variables.items():
            self.state[name] = {slot: self._make_slot(slot, variable) for slot in self.slots}
            if self.sparse_updates != "never" and variable.shape.rank:  # whether it is read by lookup shows in its first gradient
                self.state[name] |= self.extra_sparse_slots(variable)

    def variables(self) -> dict[str, tf.Variable]:
        """Every slot by path."""
        return {f"{name}/{slot}": variable for name, slots in self.state.items() for slot, variable in slots.items()}

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
            gradients: each replica's share of the gradient, as strategy.run returns it; variables without one are left alone.
            step: int64 [], the number of updates made before this one.
            rows: f32 [], how many rows the global batch has, without its padding.
            want_norm: bool []: return the summed gradient's global norm, f32 [] (else 0: nobody looks at it in most steps).
        """
        for name, gradient in gradients.items():
            self.forms[name] = self._form(variables[name], strategy.experimental_local_results(gradient))
        names = list(gradients)
        pairs = [(gradients[name], variables[name]) for name in names]
        summed = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
        one_copy = [strategy.experimental_local_results(gradient)[0] for gradient in summed]

        def global_norm() -> tf.Tensor:
            return tf.linalg.global_norm([merge(g).values if isinstance(g, tf.IndexedSlices) else g for g in one_copy])

        norm = global_norm() if self.clip_norm else tf.cond(want_norm, global_norm, lambda: 0.0)
        clip = tf.minimum(1.0, self.clip_norm / tf.maximum(norm, 1e-12)) if self.clip_norm else None
        rate, l2 = self.learning_rate(step), self.l2 / rows
        for name, gradient in zip(names, summed):

            def update(variable: tf.Variable, gradient: Gradient, slots: dict, name: str = name) -> None:
                self._update(name, variable, gradient, slots, rate, step, l2, clip)

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
    ) -> None:
        scale = 1.0 if clip is None else clip
        if not isinstance(gradient, tf.IndexedSlices):
            self.dense(variable, gradient * scale, slots, rate, step)
        elif self.forms[name] == "dense":
            full = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0]) * scale
            if self.l2:
                ones = tf.ones_like(gradient.indices, variable.dtype)
                touched = tf.minimum(tf.math.unsorted_segment_sum(ones, gradient.indices, variable.shape[0]), 1)
                full += l2 * _along_rows(touched, variable) * variable
            self.dense(variable, full, slots, rate, step)
        else:
            merged = merge(gradient)
            values = merged.values * scale
            if self.l2:
                values += l2 * tf.gather(variable, merged.indices)
            self.sparse(variable, values, merged.indices, slots, rate, step)

    def _form(self, variable: tf.Variable, shares: Sequence[Gradient]) -> str:
        """dense or sparse, from the shapes of all replicas' shares, so that the number of replicas does not matter."""
        if not isinstance(shares[0], tf.IndexedSlices) or self.sparse_updates == "never":
            return "dense"
        lookups = [share.indices.shape[0] for share in shares]
        small = self.sparse_updates == "auto" and None not in lookups and variable.shape[0] < DENSE_BELOW * sum(lookups)
        return "dense" if small else "sparse"

    def _make_slot(self, slot: str, variable: tf.Variable) -> tf.Variable:
        return _like(variable, variable.shape, 0.0, variable.dtype, slot)

    def extra_sparse_slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """Slots that only the sparse form needs."""
        return {}

    def dense(self, variable: tf.Variable, gradient: tf.Tensor, slots: dict, rate: tf.Tensor, step: tf.Tensor) -> None:
        """gradient: of the variable's shape."""
        raise NotImplementedError

    def sparse(self, variable: tf.Variable, gradient: tf.Tensor, rows: tf.Tensor, slots: dict, rate: tf.Tensor, step: tf.Tensor) -> None:
        """gradient [K, ...] of the rows int [K], each row once."""
        raise NotImplementedError


class SGD(Optimizer):
    """w <- w - rate g."""

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)

    def sparse(self, variable, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        variable.scatter_sub(tf.IndexedSlices(rate * gradient, rows))


class Adagrad(Optimizer):
    """a <- a + g^2; w <- w - rate g / (sqrt(a) + epsilon), a starting at 0.1. Source: Duchi et al., 2011; Keras' defaults."""

    slots = ("accumulator",)
    epsilon = 1e-7

    def _make_slot(self, slot: str, variable: tf.Variable) -> tf.Variable:
        return _like(variable, variable.shape, 0.1, variable.dtype, slot)

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyAdagradV2(
            var=variable.handle, accum=slots["accumulator"].handle, lr=rate, epsilon=self.epsilon, grad=gradient
        )

    def sparse(self, variable, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        accumulator = tf.gather(slots["accumulator"], rows) + tf.square(gradient)
        slots["accumulator"].scatter_update(tf.IndexedSlices(accumulator, rows))
        variable.scatter_sub(tf.IndexedSlices(rate * gradient / (tf.sqrt(accumulator) + self.epsilon), rows))


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - rate c m / (sqrt(v) + epsilon), c = sqrt(1 - b2^t) / (1 - b1^t).

    Sparse: a row that missed k steps has its moments multiplied by b1^k and b2^k first. Source: Kingma and Ba, 2015; Keras' defaults.
    """

    slots = ("m", "v")
    beta1, beta2, epsilon = 0.9, 0.999, 1e-7

    def extra_sparse_slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        return {"last_step": _like(variable, variable.shape[:1], 0, tf.int64, "last_step")}

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        time = tf.cast(step + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots["m"].handle,
            v=slots["v"].handle,
            beta1_power=tf.pow(self.beta1, time),
            beta2_power=tf.pow(self.beta2, time),
            lr=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def sparse(self, variable, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        time = tf.cast(step + 1, tf.float32)
        gap = _along_rows(tf.cast(step + 1 - tf.gather(slots["last_step"], rows), tf.float32), variable)
        m = tf.pow(self.beta1, gap) * tf.gather(slots["m"], rows) + (1 - self.beta1) * gradient
        v = tf.pow(self.beta2, gap) * tf.gather(slots["v"], rows) + (1 - self.beta2) * tf.square(gradient)
        correction = tf.sqrt(1 - tf.pow(self.beta2, time)) / (1 - tf.pow(self.beta1, time))
        slots["m"].scatter_update(tf.IndexedSlices(m, rows))
        slots["v"].scatter_update(tf.IndexedSlices(v, rows))
        slots["last_step"].scatter_update(tf.IndexedSlices(tf.fill(tf.shape(rows), step + 1), rows))
        variable.scatter_sub(tf.IndexedSlices(rate * correction * m / (tf.sqrt(v) + self.epsilon), rows))


OPTIMIZERS: dict[str, type[Optimizer]] = {"adam": Adam, "adagrad": Adagrad, "sgd": SGD}


def merge(gradient: tf.IndexedSlices) -> tf.IndexedSlices:
    """The same gradient with each row once."""
    rows, position = tf.unique(gradient.indices)
    return tf.IndexedSlices(tf.math.unsorted_segment_sum(gradient.values, position, tf.shape(rows)[0]), rows)


def schedule(
    kind: str, learning_rate: float, total_steps: int, warmup_steps: int = 0, decay: float = 0.01
) -> Callable[[tf.Tensor], tf.Tensor]:
    """step int64 [] -> learning rate f32 [].

    After a linear warm-up: constant, or from learning_rate down to decay * learning_rate at total_steps along a cosine or exponential.
    """

    def rate(step: tf.Tensor) -> tf.Tensor:
        now = tf.cast(step, tf.float32)
        done = tf.clip_by_value((now - warmup_steps) / max(total_steps - warmup_steps, 1), 0.0, 1.0)
        share = tf.ones_like(done)
        if kind == "cosine":
            share = decay + (1 - decay) * (1 + tf.cos(3.141592653589793 * done)) / 2
        elif kind == "exponential":
            share = tf.pow(max(decay, 1e-12), done)
        warm = tf.minimum(1.0, (now + 1) / warmup_steps) if warmup_steps else 1.0
        return learning_rate * share * warm

    return rate


def _along_rows(values: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
    """values [K] -> [K, 1, ...], to be multiplied with rows of the variable."""
    return tf.reshape(values, [-1] + [1] * (variable.shape.rank - 1))


def _like(variable: tf.Variable, shape: Any, value: float, dtype: tf.DType, name: str) -> tf.Variable:
    """A slot that lives where its variable does."""
    with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
        return tf.Variable(tf.fill(shape, tf.constant(value, dtype)), trainable=False, name=name)
