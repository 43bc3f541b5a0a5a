"""The loop: many steps in one tf.function inside, plain Python outside."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tensorflow as tf

from tfrec.config import Config
from tfrec.errors import Again, Diverged, TfrecError
from tfrec.layers import Lookup
from tfrec.losses import Loss
from tfrec.models.base import Recommender
from tfrec.optimizers import Optimizer
from tfrec.optimizers.updates import Shares
from tfrec.system import stopping
from tfrec.training import checkpoints, strategies
from tfrec.training.monitoring import Monitor
from tfrec.training.profile import Profile

_ADVICE = "The last good checkpoint is kept. Lower --learning_rate, or set --clip_norm."


class Trainer:
    """A model, its loss and its optimiser under a strategy; make it in the strategy's scope."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Recommender,
        loss: Loss,
        optimizer: Optimizer,
        batch_size: int,
        jit_compile: bool,
        l2: float = 0.0,
    ) -> None:
        self.strategy, self.model, self.loss, self.optimizer, self.batch_size = (
            strategy,
            model,
            loss,
            optimizer,
            batch_size,
        )
        self.here = model  # the one that this process can read
        self.weights = model.named_weights()
        trainable = {
            id(weight.value) for weight in model.trainable_weights
        }  # a frozen layer's raw variables do not know that they are
        of_model = {
            path: variable for path, variable in self.weights.items() if id(variable) in trainable
        }
        self.of_loss = {f"loss/{name}": variable for name, variable in loss.named_weights().items()}
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
        optimizer.build(
            self.trainable,
            {name: penalized[path] for path in penalized for name in self.shards.get(path, [])},
            l2,
        )
        self.step = tf.Variable(
            0, dtype=tf.int64, name="step", aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self._gradients_fn = (
            tf.function(self._gradients, jit_compile=True) if jit_compile else self._gradients
        )

    def variables(self) -> dict[str, tf.Variable]:
        """Everything that a checkpoint holds, by path."""
        slots = {
            f"optimizer/{path}": variable for path, variable in self.optimizer.variables().items()
        }
        return self._of_model() | slots | {"step": self.step}

    def _of_model(self) -> dict[str, tf.Variable]:
        return {f"model/{path}": variable for path, variable in self.weights.items()} | self.of_loss

    def kept(self) -> dict[str, tf.Variable]:
        """What of that outlives training, where this process can read it."""
        return self._of_model()

    def fetch(self) -> dict[str, tf.Variable]:
        """Brings `here` up to date; returns its trainable weights by path."""
        return self.trainable

    def rows_visited(self, rows: int) -> int:
        """How often a row was visited in the last inner loop, which has so many.

        Here each of them once.
        """
        return rows

    def iterate(self, batches: Callable[..., tf.data.Dataset], start: tuple[int, int]) -> Iterator:
        """What `train` reads: batches(start, slices) from start = (epoch, step) on."""
        return strategies.iterate(self.strategy, lambda slices: batches(start, slices))

    def steps_done(self) -> int:
        """Updates made so far, over all epochs."""
        return int(self.step.numpy())

    def _gradients(self, batch: dict, y: tf.Tensor, weight: tf.Tensor) -> tuple[tf.Tensor, Shares]:
        """This replica's share of the loss (the mean over the global batch) and of the number of
        rows, f32 [2], and of the gradient.
        """
        with tf.GradientTape() as tape:
            tape.watch(list(self.trainable.values()))
            batch = self.loss.choose(self.model, batch)
            loss = tf.reduce_sum(weight * self.loss(self.model, batch, y)) / self.batch_size
        gradients = tape.gradient(loss, self.trainable)
        gradients = {path: gradient for path, gradient in gradients.items() if gradient is not None}
        share = tf.stack([loss, tf.math.count_nonzero(weight, dtype=tf.float32)])
        return share, self.optimizer.merge(
            self.strategy, gradients, self.trainable, self._lookups(batch, weight / self.batch_size)
        )

    def _lookups(self, batch: dict, weight: tf.Tensor) -> dict[str, list[Lookup]]:
        """What the batch reads of each table, or of each shard of it.

        Weight: of the rows, f32 [B].
        """
        user = Lookup(batch["user"], weight)
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
        self.train.get_concrete_function(iterator, tf.constant(0, tf.int64))

    @tf.function(reduce_retracing=True)
    def train(self, iterator: Iterator, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """`steps` (int64 []) updates; stops after one whose loss is not finite.

        Returns:
            The mean loss of the steps, and the global norm of the last gradient.
        """
        total, norm = 0.0, 0.0
        for i in tf.range(steps):
            batch, y, weight = next(iterator)
            shares, gradients = self.strategy.run(self._gradients_fn, args=(batch, y, weight))
            loss, _ = tf.unstack(
                self.strategy.reduce(tf.distribute.ReduceOp.SUM, shares, axis=None)
            )
            norm = self.optimizer.apply(
                self.strategy, gradients, self.trainable, self.step, want_norm=i == steps - 1
            )
            self.step.assign_add(1)
            total += loss
            if not tf.math.is_finite(loss):
                break
        return total / tf.cast(steps, tf.float32), norm


@dataclass
class Progress:
    """Where a run is; saved with each checkpoint."""

    epoch: int = 0
    step: int = 0  # within the epoch
    best_value: float | None = None
    best_epoch: int = 0
    best_step: int = 0  # over the run: names the checkpoint of the best weights
    bad_epochs: int = 0
    seconds: float = 0.0
    speeds: list[float] = field(default_factory=list)  # rows/s of each inner loop
    history: list[dict[str, float]] = field(
        default_factory=list
    )  # of each epoch: loss and the validation figure
    data: int = 0  # fingerprint of the data
    lanes: int = 1  # into which an epoch's rows are cut
    visited: int = 0  # rows in this epoch; one whose worker died is visited again
    loss: float = 0.0  # sum over the steps of this epoch


def fit(
    trainer: Trainer,
    batches: Callable[[tuple[int, int]], Iterator],
    rows: int,
    config: Config,
    workdir: Path,
    validate: Callable[[], dict[str, float]] | None,
    objective: tuple[str, bool],
    data: int,
    describe: Callable[[], str],
    is_chief: bool = True,
) -> Progress:
    """Trains to the end, from where the checkpoints in workdir stand; afterwards the model holds
    the weights to keep.

    Args: batches: (epoch, step) -> iterator of the training batches from there on. rows: number of
        training rows. validate: makes the validation figures; None where there are no validation
        rows (then nothing stops the run early). objective: the validation figure that decides, and
        whether more is better. data: the data's fingerprint. describe: what some users are
        recommended now, as Markdown for TensorBoard. is_chief: this process writes and speaks;
        others of a cluster, which train in step with it, do not.

    Raises: Diverged: a loss, a validation figure or a weight is not finite; the last good
        checkpoint stays. TfrecError: the data changed since the checkpoint. Again: SIGTERM came, to
        this process or to another one; the checkpoint is written.
    """
    folder = workdir / "checkpoints"
    steps = -(-rows // config.train.batch_size)
    per_loop = config.train.steps_per_loop or min(steps, 1000)
    patience = config.train.early_stopping if validate else 0
    progress = _resume(trainer, folder, data, strategies.lanes(config), patience > 0, is_chief)
    with (
        Monitor(
            workdir / "logs",
            config,
            config.train.epochs * steps,
            progress.epoch * steps + progress.step,
            is_chief,
        ) as monitor,
        Profile(workdir / "logs", config.train.profile_steps, is_chief) as profile,
        stopping.noted() as stop,
    ):
        iterator, saved = batches((progress.epoch, progress.step)), time.monotonic()
        if (
            trainer.steps_done()
        ):  # the checkpoint may be of another strategy, whose tables took other modes
            trainer.trace(iterator)
            trainer.optimizer.catch_up(
                trainer.trainable, tf.constant(trainer.steps_done(), tf.int64)
            )
        while progress.epoch < config.train.epochs and not (
            patience and progress.bad_epochs >= patience
        ):
            began = time.monotonic()
            while progress.step < steps:
                count = min(per_loop, steps - progress.step)
                progress.loss += count * _inner_loop(
                    trainer, iterator, count, rows, progress, steps, monitor, profile
                )
                told = _told_to_stop(trainer, stop)
                if progress.step < steps and (told or time.monotonic() - saved > 60):
                    progress.seconds += time.monotonic() - began
                    _save(trainer, folder, progress, is_chief)
                    if told:
                        raise Again(
                            f"told to stop (SIGTERM) and saved at step {trainer.steps_done():,}"
                        )
                    began = saved = time.monotonic()
            if not progress.epoch:
                monitor.update_modes(trainer.optimizer.modes)
            weights = trainer.fetch()
            validation = validate() if validate else {}
            is_best = _judge(progress, validation, objective, trainer.steps_done())
            progress.epoch, progress.step = progress.epoch + 1, 0
            if not patience:
                progress.best_epoch, progress.best_step = (
                    progress.epoch,
                    trainer.steps_done(),
                )  # the last weights are kept
            progress.seconds += time.monotonic() - began
            loss, speed, progress.loss = progress.loss / steps, progress.speeds[-1], 0.0
            progress.history.append(
                {"loss": loss}
                | {name: validation[name] for name in objective[:1] if name in validation}
            )
            visited, progress.visited = (
                progress.visited if strategies.has_servers(trainer.strategy) else None,
                0,
            )
            monitor.epoch(
                progress.epoch,
                trainer.steps_done(),
                loss,
                speed,
                visited,
                validation,
                objective[0],
                is_best,
            )
            if is_chief:
                tables = trainer.here.embeddings("user") | trainer.here.embeddings("product")
                monitor.weights(trainer.steps_done(), weights, tables, describe())
            _save(trainer, folder, progress, is_chief)
            if _told_to_stop(trainer, stop):
                raise Again(f"told to stop (SIGTERM) and saved after epoch {progress.epoch}")
            saved = time.monotonic()
    trainer.fetch()
    if patience:
        checkpoints.restore(folder, progress.best_step, trainer.kept(), partly=True)
    return progress


def _inner_loop(
    trainer: Trainer,
    iterator: Iterator,
    count: int,
    rows: int,
    progress: Progress,
    steps: int,
    monitor: Monitor,
    profile: Profile,
) -> float:
    """`count` steps; returns their mean loss."""
    before, began = trainer.steps_done(), time.monotonic()
    loss, norm = profile.train(trainer.train, iterator, before, count)
    step = trainer.steps_done()
    if not math.isfinite(loss):
        raise Diverged(f"the loss is not finite at step {step:,}. {_ADVICE}")
    assert step == before + count, "train(n) makes n steps"
    last = rows - (steps - 1) * trainer.batch_size  # rows of the epoch's last batch
    examples = count * trainer.batch_size - (
        trainer.batch_size - last if progress.step + count == steps else 0
    )
    speed = examples / (time.monotonic() - began)
    progress.step += count
    progress.visited += trainer.rows_visited(examples)
    progress.speeds.append(speed)
    monitor.loop(
        step,
        count,
        loss,
        float(trainer.optimizer.learning_rate(tf.constant(step - 1))),
        speed,
        norm,
    )
    return loss


def _judge(
    progress: Progress, validation: dict[str, float], objective: tuple[str, bool], step: int
) -> bool:
    """Notes whether this epoch is the best so far."""
    name, more_is_better = objective
    value = validation.get(name)
    if value is None:
        return False
    if not math.isfinite(value):
        raise Diverged(f"validation {name} is not finite after step {step:,}. {_ADVICE}")
    best = progress.best_value
    if best is None or (value > best if more_is_better else value < best):
        progress.best_value, progress.best_epoch, progress.best_step, progress.bad_epochs = (
            value,
            progress.epoch + 1,
            step,
            0,
        )
        return True
    progress.bad_epochs += 1
    return False


def _told_to_stop(trainer: Trainer, stop: stopping.Request) -> bool:
    """Has SIGTERM come to any process of the cluster?"""
    return strategies.total(trainer.strategy, float(stop.made)) > 0


def _save(trainer: Trainer, folder: Path, progress: Progress, is_chief: bool) -> None:
    if not is_chief:
        return
    step = trainer.steps_done()
    for path, variable in trainer.trainable.items():
        if not tf.reduce_all(tf.math.is_finite(variable)):
            raise Diverged(f"weight {path} is not finite after step {step:,}. {_ADVICE}")
    trainer.optimizer.mark_dense(tf.constant(step, tf.int64))
    checkpoints.save(folder, step, trainer.variables(), dataclasses.asdict(progress))
    checkpoints.keep(folder, {step, progress.best_step})


def _resume(
    trainer: Trainer, folder: Path, data: int, lanes: int, wants_best: bool, is_chief: bool
) -> Progress:
    last = max(checkpoints.steps(folder), default=-1) if is_chief else 0
    last = int(
        strategies.total(trainer.strategy, last)
    )  # the chief says which, or some might see one that it is about to write
    if last < 0:
        return Progress(data=data, lanes=lanes)
    progress = _read(folder, last)
    if progress.data != data:
        raise TfrecError(
            f"{folder.parent}: the data have changed since this run began. Take another --workdir."
        )
    if progress.step and progress.lanes != lanes:
        raise TfrecError(
            f"{folder.parent}: it stopped within epoch {progress.epoch + 1}, whose rows on disk "
            f"were cut among {progress.lanes} "
            f"machines, and would now be cut among {lanes}. Go on with as many as before."
        )
    progress.lanes = lanes
    if wants_best and progress.best_step not in (0, last):
        checkpoints.restore(
            folder, progress.best_step, trainer.kept(), partly=True
        )  # is it readable? It is wanted in the end
    checkpoints.restore(folder, last, trainer.variables())
    if is_chief:
        print(f"going on after epoch {progress.epoch}, step {progress.step} of the next")
    return progress


def _read(folder: Path, step: int) -> Progress:
    try:
        return Progress(**checkpoints.state(folder, step))
    except TypeError:
        path = folder / f"step-{step}" / "state.json"
        raise TfrecError(
            f"{path}: it is damaged, or of another version of tfrec. Remove {folder}: the run "
            "begins anew."
        ) from None


def _within(lookup: Lookup, first: int, end: int) -> Lookup:
    """Those of the rows first .. end - 1, counted from first."""
    ids = tf.reshape(lookup.ids, [-1])
    here = (ids >= first) & (ids < end)
    return Lookup(
        tf.boolean_mask(ids, here) - first, tf.boolean_mask(tf.reshape(lookup.weight, [-1]), here)
    )


def _shards(path: str, variable: Any) -> dict[str, tf.Variable]:
    """The variable by its path, or the parts that lie on different parameter servers."""
    parts = getattr(variable, "variables", None)
    return (
        {f"{path}/{number}": part for number, part in enumerate(parts)}
        if parts
        else {path: variable}
    )
