"""The optimisers, each in two forms. Dense: Keras' semantics, by TensorFlow's fused kernels where
they are faster. Sparse: only the rows that the batch touched.

In steps that do not touch a row, SGD, Adagrad and FTRL would not move it, so both forms agree.
Momentum and Adam would move it on: the sparse form makes that movement when the row is touched the
next time, so both agree on rows that are touched in every step.
"""

import math
from collections.abc import Callable

import tensorflow as tf

from tfrec.layers import lookup
from tfrec.optimizers.updates import Optimizer, along_rows, like

# A dense weight with fewer numbers than this costs more in Adam's fused kernel, which splits it
# over the CPU's threads and waits for them, than as a few small operations.
FUSED_FROM = 20_000


class SGD(Optimizer):
    """w <- w - rate g."""

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        return before - rate * gradient


class Momentum(Optimizer):
    """u <- b u - rate g; w <- w + u.

    Sparse: a row that missed k steps first moves by u (b + ... + b^k), and u decays by b^k: where
    the row is touched it is exactly where dense momentum has it, whatever the schedule. In between
    it lags behind by the movement that it has not made yet. Source: Polyak, 1964; Keras'
    SGD(momentum=0.9).
    """

    slots = (("velocity", 0.0),)
    makes_up = True
    beta = 0.9

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=slots["velocity"].handle,
            lr=rate,
            grad=gradient,
            momentum=self.beta,
        )

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        missed, old = (
            along_rows(self.missed(slots, rows, step), before),
            lookup(slots["velocity"], rows),
        )
        velocity = power(self.beta, missed + 1) * old - rate * gradient
        self.put(slots["velocity"], rows, velocity, old)
        return before + _geometric(self.beta, missed) * old + velocity

    def make_up(self, variable, slots, missed, step):  # type: ignore[no-untyped-def]
        variable.assign(variable + _geometric(self.beta, missed) * slots["velocity"])
        slots["velocity"].assign(power(self.beta, missed) * slots["velocity"])


class Adagrad(Optimizer):
    """a <- a + g^2.

    W <- w - rate g / (sqrt(a) + epsilon), a starting at 0.1. Source: Duchi et al., 2011; Keras'
    defaults.
    """

    slots = (("accumulator", 0.1),)
    epsilon = 1e-7

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyAdagradV2(
            var=variable.handle,
            accum=slots["accumulator"].handle,
            lr=rate,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        old = lookup(slots["accumulator"], rows)
        accumulator = old + tf.square(gradient)
        self.put(slots["accumulator"], rows, accumulator, old)
        return before - rate * gradient / (tf.sqrt(accumulator) + self.epsilon)


class RowwiseAdagrad(Adagrad):
    """a <- a + mean(g^2) over a row, one number a row [rows] in place of [rows, d]; w <- w - rate g
    / (sqrt(a) + epsilon).

    A row is all that a model keeps of a user: his bias, whose gradient is larger than a factor's,
    takes larger steps than under Adagrad.

    Source: FBGEMM's EXACT_ROWWISE_ADAGRAD, with which DLRM (Naumov et al., 2019) trains its tables;
    Adagrad's start and epsilon.
    """

    def make_slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        return {
            "accumulator": like(variable, variable.shape[:1], 0.1, variable.dtype, "accumulator")
        }

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        accumulator = slots["accumulator"].assign_add(_mean_square(gradient))
        variable.assign_sub(self._movement(gradient, accumulator, rate))

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        old = lookup(slots["accumulator"], rows)
        accumulator = old + _mean_square(gradient)
        self.put(slots["accumulator"], rows, accumulator, old)
        return before - self._movement(gradient, accumulator, rate)

    def _movement(self, gradient: tf.Tensor, accumulator: tf.Tensor, rate: tf.Tensor) -> tf.Tensor:
        of_row = rate / (tf.sqrt(accumulator) + self.epsilon)
        return gradient * (along_rows(of_row, gradient) if gradient.shape.rank else of_row)


class Adam(Optimizer):
    """m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - rate c m / (sqrt(v) + epsilon), c
    = sqrt(1 - b2^t) / (1 - b1^t).

    Sparse: a row that missed k steps first moves by what dense Adam moves it in them, rate c m /
    (sqrt(v) + epsilon) (q + ... + q^k) with q = b1 / sqrt(b2), and its moments are multiplied by
    b1^k and b2^k. The moments are exact. The movement is exact but for the rate and c, which it
    takes from the first missed step, and for epsilon where v is tiny; and it comes late: until it
    is touched again, a row lags behind dense Adam. Measured (mf, latest-small, batch 128, rate
    0.002, no L2, 1,700 steps, validation every 170): at most 0.009 RMSE off dense Adam's curve,
    where moments without the movement are 0.097 off and lazy Adam, which does neither, 0.033.
    Source: Kingma and Ba, 2015; Keras' defaults.
    """

    slots = (("m", 0.0), ("v", 0.0))
    makes_up = True
    beta1, beta2, epsilon = 0.9, 0.999, 1e-7

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        if variable.shape.num_elements() < FUSED_FROM and "CPU" in variable.device:
            m = slots["m"].assign_add((1 - self.beta1) * (gradient - slots["m"]))
            v = slots["v"].assign_add((1 - self.beta2) * (tf.square(gradient) - slots["v"]))
            variable.assign_sub(self._corrected_rate(step) * m / (tf.sqrt(v) + self.epsilon))
            return
        time = tf.cast(step + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=slots["m"].handle,
            v=slots["v"].handle,
            beta1_power=power(self.beta1, time),
            beta2_power=power(self.beta2, time),
            lr=rate,
            beta1=self.beta1,
            beta2=self.beta2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        missed = along_rows(self.missed(slots, rows, step), before)
        old_m, old_v = lookup(slots["m"], rows), lookup(slots["v"], rows)
        late = self._late(old_m, old_v, missed, step)
        m = power(self.beta1, missed + 1) * old_m + (1 - self.beta1) * gradient
        v = power(self.beta2, missed + 1) * old_v + (1 - self.beta2) * tf.square(gradient)
        self.put(slots["m"], rows, m, old_m)
        self.put(slots["v"], rows, v, old_v)
        return before - (late + self._corrected_rate(step) * m / (tf.sqrt(v) + self.epsilon))

    def make_up(self, variable, slots, missed, step):  # type: ignore[no-untyped-def]
        m, v = slots["m"], slots["v"]
        variable.assign(variable - self._late(m, v, missed, step))
        m.assign(power(self.beta1, missed) * m)
        v.assign(power(self.beta2, missed) * v)

    def _late(self, m: tf.Tensor, v: tf.Tensor, missed: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """What the missed steps, f32 [K, 1, ...], move the rows by."""
        rate = self._corrected_rate(step - tf.cast(missed, tf.int64))
        return (
            rate
            * _geometric(self.beta1 / self.beta2**0.5, missed)
            * m
            / (tf.sqrt(v) + self.epsilon)
        )

    def _corrected_rate(self, step: tf.Tensor) -> tf.Tensor:
        """rate c at each step, int64 [...] -> f32 [...]."""
        time = tf.cast(step + 1, tf.float32)
        return (
            self.learning_rate(step)
            * tf.sqrt(1 - power(self.beta2, time))
            / (1 - power(self.beta1, time))
        )


class AdamW(Adam):
    """w <- (1 - rate weight_decay) w, then Adam: the decay does not go through the moments. All
    variables decay, as in Keras.

    Sparse: a row that missed k steps decays k times more at the rate of now: exact under a constant
    rate, until then it lags behind. Source: Loshchilov and Hutter, 2019.
    """

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        variable.assign_sub(rate * self.weight_decay * variable)
        super().dense(variable, gradient, slots, rate, step)

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        kept = tf.pow(1 - rate * self.weight_decay, self.missed(slots, rows, step) + 1)
        return super().sparse(along_rows(kept, before) * before, gradient, rows, slots, rate, step)

    def make_up(self, variable, slots, missed, step):  # type: ignore[no-untyped-def]
        variable.assign(tf.pow(1 - self.learning_rate(step) * self.weight_decay, missed) * variable)
        super().make_up(variable, slots, missed, step)


class FTRL(Optimizer):
    """n' = n + g^2; z <- z + rate g - (sqrt(n') - sqrt(n)) w; w <- (clip(z, -rate l1, rate l1) - z)
    / (sqrt(n') + 2 rate l2).

    n starts at 0.1 and z at 0, whatever w starts at: the first step of the dense form sets each
    weight without a gradient to 0, and most of the start of the others goes too. Sparse: a row
    keeps its start until it is touched; from then on both forms agree, as a gradient of 0 changes
    nothing. z is kept times the rate: the same under a constant rate, and Keras' z would let the
    rate's decay shrink the weights with it. Source: McMahan et al., "Ad Click Prediction: a View
    from the Trenches", 2013; Keras' defaults.
    """

    slots = (("accumulator", 0.1), ("linear", 0.0))
    l1 = l2_of_weight = 0.0

    def dense(self, variable, gradient, slots, rate, step):  # type: ignore[no-untyped-def]
        tf.raw_ops.ResourceApplyFtrl(
            var=variable.handle,
            accum=slots["accumulator"].handle,
            linear=slots["linear"].handle,
            grad=gradient,
            lr=rate,
            lr_power=-0.5,
            l1=self.l1,
            l2=self.l2_of_weight,
            multiply_linear_by_lr=True,
        )

    def sparse(self, before, gradient, rows, slots, rate, step):  # type: ignore[no-untyped-def]
        old = lookup(slots["accumulator"], rows)
        accumulator = old + tf.square(gradient)
        was = lookup(slots["linear"], rows)
        linear = was + rate * gradient - (tf.sqrt(accumulator) - tf.sqrt(old)) * before
        self.put(slots["accumulator"], rows, accumulator, old)
        self.put(slots["linear"], rows, linear, was)
        free = tf.clip_by_value(linear, -rate * self.l1, rate * self.l1)
        return (free - linear) / (tf.sqrt(accumulator) + 2 * rate * self.l2_of_weight)


OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowwiseAdagrad,
    "adam": Adam,
    "adamw": AdamW,
    "ftrl": FTRL,
}


def schedule(
    kind: str, learning_rate: float, total_steps: int, warmup_steps: int = 0, decay: float = 0.01
) -> Callable[[tf.Tensor], tf.Tensor]:
    """step int64 [] -> learning rate f32 [].

    After a linear warm-up: constant, or from learning_rate down to decay * learning_rate at
    total_steps along a cosine or exponential.
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


def power(base: float, exponent: tf.Tensor) -> tf.Tensor:
    """base^exponent for a base in 0..1, ten times as fast as tf.pow."""
    return tf.exp(exponent * math.log(base))


def _geometric(q: float, count: tf.Tensor) -> tf.Tensor:
    """q + q^2 + ... + q^count."""
    return (1 - power(q, count)) * (q / (1 - q))


def _mean_square(gradient: tf.Tensor) -> tf.Tensor:
    """gradient [K, ...] -> [K]."""
    return tf.reduce_mean(tf.square(gradient), axis=list(range(1, gradient.shape.rank)))
