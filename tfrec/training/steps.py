"""Steps: batches -> updates, many of them in one tf.function."""

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from tfrec.errors import UsageError
from tfrec.layers import FeatureTable, Lookup, Order
from tfrec.losses import Loss
from tfrec.models.base import Recommender, seed_of
from tfrec.models.output import Output
from tfrec.optimizers import Optimizer, machines
from tfrec.optimizers.updates import Shares
from tfrec.system.graph import compiled
from tfrec.training import strategies
from tfrec.training.settings import TrainerSettings


def attach(model: Recommender, loss: Loss, l2: float) -> None:
    """Prepares a loss for a model, and lets the model's scores mean what the loss says.

    The scores of a model that had no loss start at the mean of the loss's targets.
    """
    loss.prepare(model.data)
    is_new = model.output.loss is None
    model.output = Output(loss, model.data, l2)
    if is_new and loss.scaling is not None:
        model.start_at(model.data.scaled_mean(loss.scaling))


class Steps:
    """Makes the steps of a Trainer; make it in the strategy's scope."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Recommender,
        loss: Loss,
        optimizer: Optimizer,
        settings: TrainerSettings,
    ) -> None:
        self.strategy, self.optimizer, self.batch_size = strategy, optimizer, settings.batch_size
        self.model, self.loss = model, loss
        self.seed, self.seed_states = settings.seed, model.seed_states()
        self.local = model  # the one that this process can read
        self.weights = model.named_weights()
        trainable = {
            id(weight.value) for weight in model.trainable_weights
        }  # a frozen layer's raw variables do not know that they are
        of_model = {
            path: variable for path, variable in self.weights.items() if id(variable) in trainable
        }
        named = self.loss.named_weights().items()
        self.of_loss = {f"loss/{name}": variable for name, variable in named}
        apart = {
            path: _shards(path, variable) for path, variable in (of_model | self.of_loss).items()
        }
        self.shards = {
            path: list(shards) for path, shards in apart.items()
        }  # names of the variables that hold a weight
        self.trainable = {
            name: variable for shards in apart.values() for name, variable in shards.items()
        }
        penalized = model.penalized()
        self.optimizer.build(
            self.trainable,
            {name: penalized[path] for path in penalized for name in self.shards.get(path, [])},
            settings.l2 or 0.0,
        )
        self.step = tf.Variable(
            0, dtype=tf.int64, name="step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self._run_graph, self._one_graph = compiled(self._run), compiled(self._one)
        self._gradients_fn = self._gradients
        if settings.jit_compile:
            _check_compiles(model)
            self._gradients_fn = compiled(self._gradients, jit_compile=True)

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint holds, by path."""
        slots = {
            f"optimizer/{path}": variable for path, variable in self.optimizer.variables().items()
        }
        return self._of_model() | slots | {"step": self.step}

    def _of_model(self) -> dict[str, tf.Variable]:
        return {f"model/{path}": variable for path, variable in self.weights.items()} | self.of_loss

    def exported(self) -> dict[str, tf.Variable]:
        """Variables that outlive training, where this process can read them."""
        return self._of_model()

    def pull(self) -> dict[str, tf.Variable]:
        """Brings `local` up to date; returns its trainable weights by path."""
        return self.trainable

    def rows_visited(self, rows: int) -> int:
        """Returns how often rows were visited in the last inner loop, which has so many: here once
        each.
        """
        return rows

    def iterate(self, batches: Callable[..., tf.data.Dataset], start: tuple[int, int]) -> Iterator:
        """Returns what `run` reads: batches(start, slices) from start = (epoch, step) on."""
        return strategies.iterate(self.strategy, lambda slices: batches(start, slices))

    def steps_done(self) -> int:
        """Updates made so far, over all epochs."""
        return int(self.step.numpy())

    def _gradients(self, batch: dict, y: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, Shares]:
        """This replica's share of the loss, the mean over the global batch, f32 [], and of the
        gradient.
        """
        with tf.GradientTape() as tape:
            tape.watch(list(self.trainable.values()))
            batch = _in_order(batch, self.loss.choose(self.model, batch))
            loss = tf.reduce_sum(weight * self.loss(self.model, batch, y)) / self.batch_size
            for of_layer in self.model.losses:
                loss += tf.cast(of_layer, tf.float32) / self.strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, self.trainable)
        gradients = {path: gradient for path, gradient in gradients.items() if gradient is not None}
        return loss, self.optimizer.merge(
            self.strategy, gradients, self.trainable, self._lookups(batch, weight / self.batch_size)
        )

    def _lookups(self, batch: dict, weight: tf.Tensor) -> dict[str, list[Lookup]]:
        """Returns what the batch reads of each table, or of each shard of it.

        Weight: of the rows, f32 [B].
        """
        user = Lookup(batch["user"], weight, order=Order.of(batch, "user"))
        found = self.model.lookups(batch, user, self.loss.lookups(batch, weight))
        return {
            name: part
            for path, each in found.items()
            for name, part in self._by_shard(path, each).items()
        }

    def _by_shard(self, path: str, lookups: list[Lookup]) -> dict[str, list[Lookup]]:
        names = self.shards.get(path, [])
        if len(names) == 1:
            return {names[0]: lookups}
        parts, first = {}, 0
        for name in names:  # which hold a range of the rows each
            rows = self.trainable[name].shape[0]
            parts[name] = [_within(each, first, first + rows) for each in lookups]
            first += rows
        return parts

    def trace(self, iterator: Iterator) -> None:
        """Decides the modes of the updates without making one."""
        self._run_graph.get_concrete_function(iterator, tf.constant(0, tf.int64))

    def run(self, iterator: Iterator, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes `steps` (int64 []) updates; stops after one whose loss is not finite.

        Returns:
            The mean loss of the steps, and the global norm of the last gradient.
        """
        return self._run_graph(iterator, steps)

    def one(self, batch: tuple) -> tf.Tensor:
        """Makes one update by (batch, y, weight), a value of each replica's; returns its loss."""
        return self._one_graph(batch)

    def _run(self, iterator: Iterator, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def goes_on(i: tf.Tensor, total: tf.Tensor, norm: tf.Tensor) -> tf.Tensor:
            return (i < steps) & tf.math.is_finite(total)

        def step(i: tf.Tensor, total: tf.Tensor, norm: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, norm = self._update(next(iterator), want_norm=i == steps - 1)
            return i + 1, total + loss, norm

        start = tf.constant(0, tf.int64), tf.constant(0.0), tf.constant(0.0)
        _, total, norm = tf.while_loop(goes_on, step, start)
        return total / tf.cast(steps, tf.float32), norm

    def _one(self, batch: tuple) -> tf.Tensor:
        loss, _ = self._update(batch, want_norm=tf.constant(False))
        return loss

    def _update(self, batch: tuple, want_norm: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        for path, state in self.seed_states.items():  # what is drawn depends on the step alone
            of_path = tf.constant(seed_of(self.seed, path), tf.int64)
            state.assign(tf.cast(tf.stack([of_path, self.step]), state.dtype))
        if strategies.between_machines(self.strategy):
            loss, gradients = machines.summed(self.strategy, self._gradients_fn, batch)
        else:
            losses, gradients = self.strategy.run(self._gradients_fn, args=batch)
            loss = self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)
        norm = self.optimizer.apply(
            self.strategy, gradients, self.trainable, self.step, want_norm=want_norm
        )
        self.step.assign_add(1)
        return loss, norm


def _in_order(before: dict, chosen: dict) -> dict:
    """Returns a batch that a loss has chosen from another; without its orders, if it has other
    rows.
    """
    same = all(chosen.get(n) is before.get(n) for n in ("user", "product", "negatives"))
    return chosen if same else {name: chosen[name] for name in chosen if name != "orders"}


def _check_compiles(model: Recommender) -> None:
    for layer in model.named_layers().values():
        if isinstance(layer, FeatureTable) and not (layer.narrow or layer.each):
            raise UsageError(
                f"jit_compile: XLA compiles no features of which each {layer.side} has another "
                f"number, and of {layer.width:,} columns they are such. Leave it out."
            )


def _within(lookup: Lookup, first: int, end: int) -> Lookup:
    """Those of the rows first .. end - 1, counted from first."""
    ids = tf.reshape(lookup.ids, [-1])
    here = (ids >= first) & (ids < end)
    return Lookup(
        tf.boolean_mask(ids, here) - first, tf.boolean_mask(tf.reshape(lookup.weight, [-1]), here)
    )


def _shards(path: str, variable: Any) -> dict[str, tf.Variable]:
    """Returns the variable by its path, or the parts that lie on different parameter servers."""
    parts = getattr(variable, "variables", None)
    return (
        {f"{path}/{number}": part for number, part in enumerate(parts)}
        if parts
        else {path: variable}
    )
