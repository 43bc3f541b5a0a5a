"""The Trainer: many steps in one tf.function inside, plain Python outside."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from tfrec import settings as parts
from tfrec.data.interactions import Interactions, Split
from tfrec.data.negatives import Negatives
from tfrec.errors import Diverged, Preempted, UsageError
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.losses import Loss, SampledSoftmax, SquaredError
from tfrec.models.base import Recommender
from tfrec.optimizers import Adam, Optimizer
from tfrec.optimizers.keras import KerasOptimizer
from tfrec.settings import Part
from tfrec.training import strategies
from tfrec.training.hooks import EarlyStopping, Hook, ProgressBar
from tfrec.training.parameter_servers import ClusterSteps
from tfrec.training.settings import TrainerSettings
from tfrec.training.state import ADVICE, FitState, Loop, Progress, Run, finalize
from tfrec.training.steps import Steps, attach

# products of a batch: few are found faster than ordered, and many are drawn for longer than the end
# of a process waits
ORDERED_FROM, ORDERED_TO = 512, 2**18
MOST_IN_GRAPH = 20_000_000  # rows of some 35 bytes; a graph has 2 GB at most


class Trainer(Part):
    """Trains a model: steps for a loop of one's own, or the whole thing with hooks.

    The model's `output` is set from the loss: from then on evaluation and export know what its
    scores mean.

    Args:
        model: Made in the strategy's scope. Not a closed form.
        loss: None: SquaredError for ratings, SampledSoftmax for ranking.
        optimizer: None: Adam. One of tf.keras.optimizers is taken on one device.
        strategy: None: the current one. With parameter servers only `fit` works, which makes the
            model anew on them.
        settings: batch_size, epochs, l2, seed, cold_embeddings, steps_per_loop, jit_compile.

    Raises:
        UsageError: The loss is of another task or does not suit the rows, or a setting is wrong.

    Example:
        >>> model = tfrec.models.MatrixFactorization.from_data(split.train, task="ranking")
        >>> loss, optimizer = tfrec.losses.BPR(negatives=4), tfrec.optimizers.Adam(0.01)
        >>> trainer = tfrec.Trainer(model, loss, optimizer)
        >>> history = trainer.fit(split.train, split.validation, epochs=10)
    """

    Settings = TrainerSettings

    def __init__(
        self,
        model: Recommender,
        loss: Loss | None = None,
        optimizer: Optimizer | tf.keras.optimizers.Optimizer | None = None,
        strategy: tf.distribute.Strategy | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.settings = parts.for_task(self.settings, model.task)
        if model.closed_form:
            raise UsageError(f"{model.name} has a closed form: call its fit_closed_form.")
        self.model, self.evaluation = model, EvaluationSettings()
        self.strategy = strategy or tf.distribute.get_strategy()
        self.loss = loss or (SquaredError() if model.task == "rating" else SampledSoftmax())
        if isinstance(optimizer, tf.keras.optimizers.Optimizer):
            optimizer = KerasOptimizer(optimizer, self.strategy)
        self.optimizer: Optimizer = optimizer or Adam()
        for argument, given, base in (
            ("loss", self.loss, Loss),
            ("optimizer", self.optimizer, Optimizer),
        ):
            if not isinstance(given, base):
                raise UsageError(
                    f"{argument}={given!r}: expected an instance, such as "
                    f"{'tfrec.losses.BPR()' if base is Loss else 'tfrec.optimizers.Adam(0.01)'}."
                )
        self.optimizer.for_task(model.task)
        if self.loss.task != model.task:
            raise UsageError(
                f"loss={type(self.loss).__name__}: it is a loss of the {self.loss.task} task, and "
                f"the model is made for {model.task}."
            )
        strategies.check(self.strategy, self.settings.batch_size, self.settings.jit_compile)
        self._check_history()
        cluster = strategies.has_servers(self.strategy)
        if model.output.loss is not self.loss:
            with contextlib.nullcontext() if cluster else self.strategy.scope():
                attach(model, self.loss, self.settings.l2)
        model.output.l2 = self.settings.l2
        with self.strategy.scope():
            made = ClusterSteps if cluster else Steps
            self.steps: Steps = made(self.strategy, model, self.loss, self.optimizer, self.settings)

    def step(
        self, batch: dict[str, tf.Tensor], y: tf.Tensor, weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Makes one update.

        Args:
            batch: A global batch, or what `iterate` yields.
            y: f32 [B].
            weight: f32 [B]; None: all weigh 1.

        Returns:
            The loss, f32 [].

        Raises:
            UsageError: The batch has other than `batch_size` rows, or the schedule no end.
        """
        self._check_alone("step")
        size = self.settings.batch_size
        if isinstance(y, tf.Tensor) and y.shape[0] != size:
            raise UsageError(f"batch: it has {y.shape[0]} rows, and batch_size is {size}.")
        if weight is None:
            weight = tf.ones_like(y)
        # whose order is that of the rows that `iterate` yields, not of what has become of them
        batch = {name: batch[name] for name in batch if name != "orders"}
        values = batch, y, weight
        if self.strategy.num_replicas_in_sync > 1 and isinstance(y, tf.Tensor):
            values = self._cut(values)
        return self.steps.one(values)

    def run(self, iterator: Iterator, steps: int) -> tf.Tensor:
        """Makes many updates in one graph call.

        Args:
            iterator: Of `iterate`.
            steps: How many.

        Returns:
            Their mean loss, f32 [].

        Raises:
            UsageError: The schedule has no end.
        """
        self._check_alone("run")
        loss, _ = self.steps.run(iterator, tf.constant(steps, tf.int64))
        return loss

    def iterate(self, train: Interactions, start: tuple[int, int] = (0, 0)) -> Iterator:
        """Returns training batches for `step` and `run`, each cut among the replicas.

        Args:
            train: The training rows.
            start: (epoch, step) to begin with, from 0.
        """
        return self.steps.iterate(self._batches(train), start)

    def fit(
        self,
        train: Interactions,
        validation: Interactions | None = None,
        epochs: int | None = None,
        hooks: Sequence[Hook] | None = None,
    ) -> Progress:
        """Trains to the end; afterwards the model holds the weights to keep.

        Args:
            train: The training rows.
            validation: Rows that decide on the weights that are kept; None: the last are kept.
            epochs: None: as the settings say.
            hooks: None: early stopping, and a bar.

        Returns:
            Where training ended: history, best epoch, seconds.

        Raises:
            UsageError: This Trainer has made steps already, or there is no such metric.
            Diverged: A loss, a validation metric or a weight is not finite.
            Preempted: SIGTERM came, and the training has been saved.
        """
        for rows in (train, validation):
            if rows is not None and not isinstance(rows, Interactions):
                raise UsageError(
                    f"fit: expected rows such as split.train, got a {type(rows).__name__}."
                )
        hooks = [EarlyStopping(), ProgressBar()] if hooks is None else list(hooks)
        fit = self._state(train, validation, epochs)
        if fit.done:
            raise UsageError(
                f"fit: this Trainer has made {fit.done:,} steps already. Make a new one: the model "
                "goes on from its weights."
            )
        self.optimizer.total_steps = fit.epochs * fit.steps_per_epoch
        try:
            for hook in hooks:
                hook.restore(fit)
            for hook in hooks:
                hook.begin(fit)
            self._train(fit, hooks)
            self.steps.pull()
            for hook in hooks:
                hook.after_training(fit)
        finally:
            for hook in hooks:
                hook.close()
        finalize(self.model, fit.split, self.settings.cold_embeddings)
        self.model.set_policies()
        return fit.progress

    def _train(self, fit: FitState, hooks: Iterable[Hook]) -> None:
        iterator = self.iterate(fit.train, (fit.progress.epoch, fit.progress.step))
        if fit.done:  # the checkpoint may be of a strategy whose tables took other modes
            self.steps.trace(iterator)
            self.optimizer.catch_up(self.steps.trainable, tf.constant(fit.done, tf.int64))
        run: Run = self._run
        for hook in hooks:
            run = hook.wrap(run)
        while fit.progress.epoch < fit.epochs and not fit.stop:
            while fit.progress.step < fit.steps_per_epoch:
                self._inner_loop(fit, iterator, run)
                for hook in hooks:
                    hook.after_loop(fit)
                if fit.stop_requested and fit.progress.step < fit.steps_per_epoch:
                    raise _preempted(fit, f"at step {fit.done:,}")
            fit.end_epoch()
            for hook in hooks:
                hook.after_epoch(fit)
            if fit.stop_requested:
                raise _preempted(fit, f"after epoch {fit.progress.epoch}")

    def _inner_loop(self, fit: FitState, iterator: Iterator, run: Callable) -> None:
        """Some steps in one graph call, not beyond the epoch's end."""
        progress, size = fit.progress, self.settings.batch_size
        per_loop = self.settings.steps_per_loop or min(fit.steps_per_epoch, 1000)
        count = min(per_loop, fit.steps_per_epoch - progress.step)
        before, began = fit.done, time.monotonic()
        loss, norm = run(iterator, before, count)
        done, seconds = fit.done, time.monotonic() - began
        if not math.isfinite(loss):
            raise Diverged(f"the loss is not finite at step {done:,}. {ADVICE}")
        assert done == before + count, "run(n) makes n steps"
        progress.step += count
        rows = count * size
        if progress.step == fit.steps_per_epoch:  # the last batch is padded
            rows -= fit.steps_per_epoch * size - len(fit.train)
        progress.loss += count * loss
        progress.seconds += seconds
        progress.visited += self.steps.rows_visited(rows)
        progress.speeds.append(rows / seconds)
        rate = float(self.optimizer.learning_rate(tf.constant(done - 1)))
        fit.loop = Loop(count, loss, norm, rate, rows / seconds)

    def _run(self, iterator: Iterator, done: int, count: int) -> tuple[float, float]:
        loss, norm = self.steps.run(iterator, tf.constant(count, tf.int64))
        return float(loss), float(norm)

    def _state(
        self, train: Interactions, validation: Interactions | None, epochs: int | None
    ) -> FitState:
        nobody = train.of_users(train.users()[:0])
        split = Split(train, nobody if validation is None else validation, nobody)
        if strategies.has_servers(self.strategy) and train.in_memory and len(train) > MOST_IN_GRAPH:
            raise UsageError(
                f"strategy=parameter_server: {len(train):,} rows in memory are too many for the "
                "graph that the workers are sent. Write them with scripts/prepare.py, and take "
                "--dataset=blocks:FOLDER."
            )
        evaluator = None
        if len(split.validation):
            evaluator = Evaluator(self.model, split, self.evaluation, part="validation")
        changed = {} if epochs is None else {"epochs": epochs}
        settings = parts.make(Trainer, vars(self.settings) | changed)
        return FitState(self.steps, settings, split, evaluator)

    def _batches(self, train: Interactions) -> Callable[..., tf.data.Dataset]:
        size, seed = self.settings.batch_size, self.settings.seed
        columns = self.model.batch_columns
        settings = self.loss.batch_settings(size, seed, columns)
        ordered = self._can_order(settings.negatives)
        return train.batches_of(dataclasses.replace(settings, ordered=ordered)).dataset

    def _can_order(self, negatives: Negatives | None) -> bool:
        """Returns whether batches tell the order of their rows, and a step is faster by it: on
        CPUs, of so many products a replica.
        """
        if getattr(self.loss.settings, "hard_negatives", 0):  # which are not known yet
            return False
        own = negatives.count if negatives and not (negatives.shared or negatives.in_batch) else 0
        products = self.settings.batch_size // self.strategy.num_replicas_in_sync * (1 + own)
        # between machines rows cross as they were looked up, on servers there is no Python, XLA
        # compiles no segment_sum, and segment_max of integers has no kernel for GPUs
        alone = strategies.in_one_process(self.strategy) and not self.settings.jit_compile
        on_cpu = alone and not tf.config.list_physical_devices("GPU")
        return on_cpu and ORDERED_FROM <= products <= ORDERED_TO

    def _cut(self, values: tuple) -> tuple:
        """Returns a global batch as a value of each replica's."""
        replicas = self.strategy.num_replicas_in_sync

        def of_replica(context: Any) -> tuple:
            number = context.replica_id_in_sync_group
            pool = {"negatives", "negative_weight"}

            def slice_of(column: tf.Tensor) -> tf.Tensor:
                width = column.shape[0] // replicas
                return column[number * width : (number + 1) * width]

            batch, y, weight = values
            shared = {n for n in pool if n in batch and batch[n].shape.rank == 1}
            cut = {n: c if n in shared else slice_of(c) for n, c in batch.items()}
            return cut, slice_of(y), slice_of(weight)

        return self.strategy.experimental_distribute_values_from_function(of_replica)

    def _check_history(self) -> None:
        """A negative that a user has would count them in its history, a positive does not."""
        negatives = self.loss.negatives
        if not self.model.counts_product_history or negatives is None:
            return
        if (negatives.shared or negatives.in_batch) and not negatives.exclude_positives:
            raise UsageError(
                "exclude_positives: implicit factors of products (the hybrid's term "
                "product_history) need it with negatives that a batch shares."
            )

    def _check_alone(self, what: str) -> None:
        """Raises UsageError where steps can be made by `fit` only."""
        if strategies.has_servers(self.strategy):
            raise UsageError(f"{what}: with parameter servers only fit works.")
        schedule = self.optimizer.settings.schedule
        if schedule != "constant" and not self.optimizer.total_steps:
            raise UsageError(
                f"schedule={schedule}: set trainer.optimizer.total_steps, where it ends, before "
                "the first step."
            )


def _preempted(fit: FitState, where: str) -> Preempted:
    saved = "saved" if fit.folder else "stopped"
    return Preempted(f"told to stop (SIGTERM) and {saved} {where}")
