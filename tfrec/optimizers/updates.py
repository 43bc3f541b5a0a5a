"""From gradients to updates: what every optimizer does alike, on raw tf.Variables.

The replicas' gradients are summed, clipped, and given to an optimizer's rule in one of two
modes. Dense: the gradient of the whole variable. Sparse: the gradient of a lookup (IndexedSlices),
merged by row; only the rows that the batch touched are read and written.

L2 is a part of the objective: each lookup of a row adds weight l2 |row|^2 to it, so a row's
gradient gets 2 l2 (sum of the weights) row.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
import tensorflow as tf

from tfrec.errors import UsageError
from tfrec.layers import Lookup, lookup
from tfrec.optimizers.messages import packed, unpacked
from tfrec.optimizers.sums import Gradient, Weights, dedupe, in_full, order_of, together
from tfrec.settings import Part, for_task, setting
from tfrec.system.graph import compiled

Slots: TypeAlias = dict[str, tf.Variable]
Shares: TypeAlias = tuple[
    dict[str, Any], dict[str, Any]
]  # {variable: gradient}, {table: weights of its lookups}
# auto: a table takes the dense mode if it has fewer rows than so many times the batch's lookups, or
# so few numbers that the sparse mode's thirty or so small operations cost more than a pass over it
DENSE_BELOW, SMALL = 4, 20_000
DECAY = 0.01  # where a schedule ends, if the settings do not say


@dataclass(frozen=True)
class OptimizerSettings:
    """What every optimizer has."""

    learning_rate: float | None = setting(
        None,
        "peak learning rate; unset: 0.002 for ratings, 0.005 for ranking",
        low=0.0,
        by_task={"rating": 0.002, "ranking": 0.005},
    )
    schedule: str = setting(
        "constant", "learning rate after the warm-up", ("constant", "cosine", "exponential")
    )
    decay: float | None = setting(
        None,
        "share of the learning rate that is left at the end of a cosine or exponential schedule; "
        f"unset: {DECAY}",
        low=0.0,
        high=1.0,
    )
    warmup_steps: int = setting(
        0, "steps over which the learning rate rises linearly from 0", low=0
    )
    clip_norm: float = setting(0.0, "clip gradients to this global norm; 0: never", low=0.0)
    sparse_updates: str = setting(
        "auto",
        "update only the touched rows of a table; auto: of a table that is large against the batch",
        ("auto", "always", "never"),
    )

    def __post_init__(self) -> None:
        if self.decay is not None and self.schedule == "constant":
            raise UsageError(
                f"decay={self.decay}: schedule=constant has none. Take cosine or exponential."
            )


@dataclass(frozen=True)
class Now:
    """What the updates of one step share: the learning rate f32 [], how many steps were made before
    it and with it, int64 [], and the rate with what an optimizer corrects it by, f32 [].
    """

    rate: tf.Tensor
    step: tf.Tensor
    done: tf.Tensor
    corrected: tf.Tensor


class Optimizer(Part):
    """What the optimizers share: update modes, the schedule, clipping, L2, the sum over replicas.

    Args:
        learning_rate: The peak; None: what suits the task, which who trains says by `for_task`.
        settings: The others, as keywords.

    Raises:
        UsageError: A setting is unknown, has the wrong type or is out of bounds.
    """

    Settings = OptimizerSettings
    slots: ClassVar[tuple[tuple[str, float], ...]] = ()  # name, and the value that it starts at
    catches_up = False  # the sparse mode makes up for the steps that a row missed
    in_step = True  # no worker updates a table while another one does

    def __init__(self, learning_rate: float | None = None, **settings: Any) -> None:
        super().__init__(learning_rate=learning_rate, **settings)
        self._unset = learning_rate is None
        self.total_steps = 0  # where a schedule ends; who trains sets it before the first step
        self.l2 = 0.0
        self.state: dict[str, dict[str, tf.Variable]] = {}
        # variable -> dense | sparse, decided when the step is traced
        self.modes: dict[str, str] = {}

    def build(
        self,
        variables: dict[str, tf.Variable],
        penalized: dict[str, np.ndarray] | None = None,
        l2: float = 0.0,
    ) -> None:
        """Makes the slots of the variables; call it in the strategy's scope.

        Args:
            variables: By name.
            penalized: Of each table under L2, which of its columns are: f32 [width] of 0 and 1.
            l2: Strength of the penalty, in units of one row's loss.
        """
        self.penalized, self.l2 = penalized or {}, l2
        for name, variable in variables.items():
            self.state[name] = self.make_slots(variable)
            if (
                self.catches_up and self.settings.sparse_updates != "never" and variable.shape.rank
            ):  # whether it is a table shows in its gradient
                self.state[name]["last_step"] = make_slot(
                    variable, variable.shape[:1], 0, tf.int64, "last_step"
                )

    def for_task(self, task: str) -> None:
        """Fills in the settings whose defaults depend on the task, "rating" or "ranking"."""
        if self._unset:
            self.settings = dataclasses.replace(self.settings, learning_rate=None)
        self.settings = for_task(self.settings, task)

    def learning_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate at each step, int64 [...] -> f32 [...].

        After a linear warm-up constant, or from the peak down to `decay` times it at `total_steps`
        along a cosine or an exponential. Where nobody has said the task, as for ratings.
        """
        s = for_task(self.settings, "rating")
        if s.schedule == "constant" and not s.warmup_steps:
            one = step.shape.rank == 0
            return tf.constant(s.learning_rate) if one else tf.fill(tf.shape(step), s.learning_rate)
        now = tf.cast(step, tf.float32)
        left = max(self.total_steps - s.warmup_steps, 1)
        done = tf.clip_by_value((now - s.warmup_steps) / left, 0.0, 1.0)
        share, decay = tf.ones_like(done), DECAY if s.decay is None else s.decay
        if s.schedule == "cosine":
            share = decay + (1 - decay) * (1 + tf.cos(3.141592653589793 * done)) / 2
        elif s.schedule == "exponential":
            share = tf.pow(max(decay, 1e-12), done)
        warm = tf.minimum(1.0, (now + 1) / s.warmup_steps) if s.warmup_steps else 1.0
        return s.learning_rate * share * warm

    def now(self, step: tf.Tensor | tf.Variable) -> Now:
        """Returns what the updates after so many steps, int64 [], share."""
        step = tf.convert_to_tensor(step)
        return Now(self.learning_rate(step), step, step + 1, self.corrected_rate(step))

    def corrected_rate(self, step: tf.Tensor) -> tf.Tensor:
        """Returns the learning rate at each step with the optimizer's correction, f32 [...]."""
        return self.learning_rate(step)

    def variables(self) -> dict[str, tf.Variable]:
        """Returns every slot by path."""
        return {
            f"{name}/{slot}": variable
            for name, slots in self.state.items()
            for slot, variable in slots.items()
        }

    def merge(
        self,
        strategy: tf.distribute.Strategy,
        gradients: dict[str, Gradient],
        variables: dict[str, tf.Variable],
        lookups: dict[str, list[Lookup]] | None = None,
    ) -> Shares:
        """Returns a replica's gradients as they cross to the others: of a table that takes the
        sparse mode, each touched row once.

        Between machines rows cross as the batch looked them up, and where their number varies as
        the whole gradient: a collective in a loop must have one shape in all steps.

        lookups: which rows of which table the replica's part of the batch reads, for L2 and to
        choose the mode.
        """
        lookups = lookups or {}
        apart = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        weights = {}
        for name, gradient in gradients.items():
            of_table = lookups.get(name, [])
            order = order_of(gradient, of_table)
            self.modes[name] = self._mode(
                variables[name], gradient, of_table, strategy.num_replicas_in_sync
            )
            varies = isinstance(gradient, tf.IndexedSlices) and gradient.indices.shape[0] is None
            if apart and varies:
                self.modes[name], gradients[name] = "dense", tf.convert_to_tensor(gradient)
            if self.l2 and name in self.penalized and of_table:
                weights[name] = together(of_table)
            if self.modes[name] == "sparse" and not apart:
                gradients[name], weight = dedupe(gradient, weights.get(name), order)
                weights |= {} if weight is None else {name: weight}
            elif order and self.modes[name] == "dense" and strategy.num_replicas_in_sync == 1:
                gradients[name] = in_full(gradient, order, variables[name].shape[0])
        return gradients, weights

    def apply(
        self,
        strategy: tf.distribute.Strategy,
        shares: Shares,
        variables: dict[str, tf.Variable],
        step: tf.Tensor,
        want_norm: tf.Tensor,
    ) -> tf.Tensor:
        """Makes one update, in cross-replica context.

        Args:
            strategy: The current one.
            shares: Each replica's share of the gradients, from `merge`, as strategy.run returns it;
                between machines, their sum. Variables without one are left alone.
            variables: {path: variable}.
            step: The number of updates made before this one, int64 [].
            want_norm: Whether to return the summed gradient's global norm, bool [].

        Returns:
            The norm, f32 [], or 0: nobody looks at it in most steps.
        """
        gradients, weights = shares
        names, alone = list(gradients), strategy.num_replicas_in_sync == 1
        self.in_step = not isinstance(strategy, tf.distribute.ParameterServerStrategy)
        apart = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        if not alone and not apart:
            pairs = [
                (part[name], variables[name]) for part in (gradients, weights) for name in part
            ]
            summed = strategy.extended.batch_reduce_to(tf.distribute.ReduceOp.SUM, pairs)
            gradients, weights = dict(zip(names, summed)), dict(zip(weights, summed[len(names) :]))
        one_copy = [strategy.experimental_local_results(gradients[name])[0] for name in names]

        def global_norm() -> tf.Tensor:
            return tf.linalg.global_norm(
                [dedupe(g)[0].values if isinstance(g, tf.IndexedSlices) else g for g in one_copy]
            )

        clip = self.settings.clip_norm
        norm = global_norm() if clip else tf.cond(want_norm, global_norm, lambda: 0.0)
        scale = tf.minimum(1.0, clip / tf.maximum(norm, 1e-12)) if clip else None
        if self.in_step:
            self._update(strategy, (gradients, weights), variables, self.now(step), scale)
            return norm
        for device in sorted({variables[name].device for name in names}):
            there = [name for name in names if variables[name].device == device]
            part = [{name: each[name] for name in there if name in each} for each in shares]
            self._update_server(strategy, (part[0], part[1]), variables, step, scale)
        return norm

    def _update_server(
        self,
        strategy: tf.distribute.Strategy,
        shares: Shares,
        variables: dict[str, tf.Variable],
        step: tf.Tensor,
        scale: tf.Tensor | None,
    ) -> None:
        """As _update of variables that live on one parameter server, to which one message goes."""
        gradients, weights = shares
        if scale is not None:
            gradients = {name: _scaled(gradient, scale) for name, gradient in gradients.items()}
        like = [*gradients.values(), *weights.values()]

        def there(message: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
            values = iter(unpacked(message, like))
            found = [{name: next(values) for name in each} for each in (gradients, weights)]
            self._update(strategy, (found[0], found[1]), variables, self.now(step), None)
            return step

        message, step = packed(like), tf.convert_to_tensor(step)
        with tf.device(variables[next(iter(gradients))].device):
            compiled(there)(message, step)

    def _update(
        self,
        strategy: tf.distribute.Strategy,
        shares: Shares,
        variables: dict[str, tf.Variable],
        now: Now,
        scale: tf.Tensor | None,
    ) -> None:
        """Updates the variables by the summed gradients, times the scale."""
        gradients, weights = shares
        alone = strategy.num_replicas_in_sync == 1
        for name in gradients:

            def update(
                variable: tf.Variable,
                gradient: Gradient,
                weight: Weights,
                slots: Slots,
                name: str = name,
            ) -> None:
                if self.modes[name] == "dense":
                    self.dense(
                        variable,
                        self._full(name, variable, gradient, weight, scale),
                        slots,
                        now,
                    )
                    return
                if not alone:
                    gradient, weight = dedupe(gradient, weight)
                rows, before = gradient.indices, lookup(variable, gradient.indices)
                values = gradient.values if scale is None else gradient.values * scale
                if weight is not None:
                    values += self._penalty(name, weight.values, before)
                self.scatter_rows(
                    variable, rows, self.sparse(before, values, rows, slots, now), before
                )
                if self.catches_up:
                    self._touch(slots["last_step"], rows, now.done)

            args = (gradients[name], weights.get(name), self.state[name])
            strategy.extended.update(variables[name], update, args=args, group=True)

    def _touch(self, last_step: tf.Variable, rows: tf.Tensor, step: tf.Tensor) -> None:
        """Notes that the rows are at `step`.

        A worker that is behind does not set back what another one has noted.
        """
        if self.in_step:
            scatter_rows(last_step, rows, tf.fill(tf.shape(rows), step))
        else:
            last_step.scatter_max(tf.IndexedSlices(tf.fill(tf.shape(rows), step), rows))

    def _full(
        self,
        name: str,
        variable: tf.Variable,
        gradient: Gradient,
        weight: Weights,
        scale: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns the gradient of the whole variable, with that of the penalty."""
        full = gradient
        if isinstance(gradient, tf.IndexedSlices):
            rows = variable.shape[0]
            full = tf.math.unsorted_segment_sum(gradient.values, gradient.indices, rows)
        full = full if scale is None else full * scale
        if weight is not None:
            of_row = tf.math.unsorted_segment_sum(weight.values, weight.indices, variable.shape[0])
            full += self._penalty(name, of_row, tf.convert_to_tensor(variable))
        return full

    def _penalty(self, name: str, weight: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Returns the gradient of weight [K] times l2 |row|^2, for rows [K, ...].

        Columns that are not penalized have none.
        """
        return along_rows(2 * self.l2 * weight, rows) * (rows * self.penalized[name])

    def _mode(
        self, variable: tf.Variable, share: Gradient, lookups: list[Lookup], replicas: int
    ) -> str:
        """dense or sparse, from how many rows the global batch looks up: the number of replicas
        does not matter.

        share: one replica's. What all replicas look up alike (a pool of negatives) stands in each
        of their shares, and counts once.
        """
        if not isinstance(share, tf.IndexedSlices) or self.settings.sparse_updates == "never":
            return "dense"
        count = share.indices.shape[0]
        few = variable.shape.num_elements() < SMALL
        if self.settings.sparse_updates == "always":
            return "sparse"
        if count is None:  # features, of which each batch has another number
            return "dense" if few else "sparse"
        alike = sum(each.ids.shape.num_elements() for each in lookups if each.shared)
        of_batch = replicas * (count - alike) + alike
        small = variable.shape[0] < DENSE_BELOW * of_batch
        return "dense" if small or few else "sparse"

    def scatter_rows(
        self, variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor, before: tf.Tensor
    ) -> None:
        """Moves the rows int [K] from `before` to `values` [K, ...].

        Where workers are not in step another one may have moved a row since it was read, so the
        movement is added: nothing is lost.
        """
        if self.in_step:
            scatter_rows(variable, rows, values)
        else:
            variable.scatter_add(tf.IndexedSlices(values - before, rows))

    def catch_up(self, variables: dict[str, tf.Variable], step: tf.Tensor) -> None:
        """Lets each row of the tables that take the dense mode make the movement that it has not
        made yet; call it eagerly.

        A run that went on from the sparse mode left them behind; the dense mode takes all rows as
        being at `step`, int64 [].
        """
        for name, slots in self._dense_tables().items():
            missed = along_rows(
                self.steps_missed(slots, tf.range(variables[name].shape[0]), step), variables[name]
            )
            if tf.reduce_any(missed > 0):
                self.catch_up_rows(variables[name], slots, missed, step)
        self.mark_dense(step)

    def mark_dense(self, step: tf.Tensor) -> None:
        """Notes of the tables that take the dense mode that all rows are at `step`, for a run that
        goes on in the sparse one.
        """
        for slots in self._dense_tables().values():
            slots["last_step"].assign(tf.fill(slots["last_step"].shape, step))

    def _dense_tables(self) -> dict[str, Slots]:
        return {
            name: slots
            for name, slots in self.state.items()
            if "last_step" in slots and self.modes.get(name) == "dense"
        }

    def steps_missed(self, slots: dict, rows: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Returns how many steps each of the rows has missed since it was last touched, f32 [K].

        Workers of a parameter server may be ahead of this one: then none.
        """
        missed = step - lookup(slots["last_step"], rows)
        return tf.cast(missed if self.in_step else tf.maximum(missed, 0), tf.float32)

    def make_slots(self, variable: tf.Variable) -> dict[str, tf.Variable]:
        """Returns the slots of one variable, by name."""
        return {
            slot: make_slot(variable, variable.shape, start, variable.dtype, slot)
            for slot, start in self.slots
        }

    def catch_up_rows(
        self, variable: tf.Variable, slots: Slots, missed: tf.Tensor, step: tf.Tensor
    ) -> None:
        """Moves all rows by what they missed, f32 [rows, 1, ...]; of those that `catches_up`."""
        raise NotImplementedError

    def dense(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        slots: dict,
        now: Now,
    ) -> None:
        """gradient: of the variable's shape."""
        raise NotImplementedError

    def sparse(
        self,
        before: tf.Tensor,
        gradient: tf.Tensor,
        rows: tf.Tensor,
        slots: dict,
        now: Now,
    ) -> tf.Tensor:
        """Returns what becomes of the table's rows int [K], each there once, from `before` and
        their gradient, both [K, ...]; updates the slots.
        """
        raise NotImplementedError


def _scaled(gradient: Gradient, scale: tf.Tensor) -> Gradient:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * scale, gradient.indices)
    return gradient * scale


def scatter_rows(variable: tf.Variable, rows: tf.Tensor, values: tf.Tensor) -> None:
    """Sets the rows int [K] to values [K, ...].

    Adding to them in place would take six times as long.
    """
    variable.scatter_update(tf.IndexedSlices(values, rows))


def along_rows(values: tf.Tensor, rows: tf.Tensor | tf.Variable) -> tf.Tensor:
    """values [K] -> [K, 1, ...], to be multiplied with rows [K, ...]."""
    return tf.reshape(values, [-1] + [1] * (rows.shape.rank - 1))


def make_slot(
    variable: tf.Variable, shape: Any, value: float, dtype: tf.DType, name: str
) -> tf.Variable:
    """Returns a slot that lives where its variable does."""
    with tf.distribute.get_strategy().extended.colocate_vars_with(variable):
        return tf.Variable(tf.fill(shape, tf.constant(value, dtype)), trainable=False, name=name)
