"""Hooks: what goes on around the steps of Trainer.fit.

A hook is asked after each inner loop and each epoch, and may stop the training. To make one of your
own, write a class with some of the methods of Hook.
"""

import dataclasses
import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf
from tqdm import tqdm

from tfrec.errors import Diverged, UsageError
from tfrec.settings import Part
from tfrec.system.progress import bar
from tfrec.training import checkpoints, strategies
from tfrec.training.settings import EarlyStoppingSettings, ProfileSettings, TensorBoardSettings
from tfrec.training.state import ADVICE, FitState, Run

SAVE_EVERY = 60  # seconds, within an epoch
# numbers: of a large table a histogram would take as long as a part of the epoch, and look the same
HISTOGRAM_OF = 50_000


class Hook:
    """What Trainer.fit calls. `fit` is the FitState, which a hook may change."""

    def restore(self, fit: FitState) -> None:
        """Before anything else: goes on where an earlier process stopped."""

    def begin(self, fit: FitState) -> None:
        """Before the first step."""

    def wrap(self, run: Run) -> Run:
        """Returns what makes the steps of an inner loop, (iterator, done, count) -> (loss,
        norm).
        """
        return run

    def after_loop(self, fit: FitState) -> None:
        """After each inner loop, whose metrics are fit.loop."""

    def after_epoch(self, fit: FitState) -> None:
        """After each epoch and its validation."""

    def after_training(self, fit: FitState) -> None:
        """After the last epoch."""

    def close(self) -> None:
        """At the end, be it an error."""


class EarlyStopping(Hook, Part):
    """Stops when validation gets no better, and keeps the best weights.

    Args:
        metric: Of the validation metrics the one that decides, such as "recall@20", or a function
            of the Predictions; "": rmse for ratings, ndcg@10 for ranking.
        more_is_better: Of a metric that is a function.
        settings: patience.
    """

    Settings = EarlyStoppingSettings

    def __init__(
        self,
        metric: str | Callable[[Any], float] = "",
        more_is_better: bool = True,
        patience: int = 5,
    ) -> None:
        super().__init__(early_stopping=patience)
        self.patience, self.metric, self.more_is_better = patience, metric, more_is_better
        self.best: dict[str, tf.Tensor] = {}

    def restore(self, fit: FitState) -> None:
        fit.decide_by(self.metric, self.more_is_better)
        fit.keeps_best = bool(self.patience and fit.validator)

    def begin(self, fit: FitState) -> None:
        self._check_patience(fit)

    def after_epoch(self, fit: FitState) -> None:
        progress, value = fit.progress, fit.validation.get(fit.metric)
        if value is None:
            return
        if not math.isfinite(value) and fit.function:
            raise UsageError(
                f"metric={fit.metric}: it returned {value} of the validation rows. (Rating tasks "
                "have an empty ranking without full_ranking.)"
            )
        if not math.isfinite(value):
            raise Diverged(
                f"validation {fit.metric} is not finite after step {fit.done:,}. {ADVICE}"
            )
        best = progress.best_value
        fit.is_best = best is None or (value > best if fit.more_is_better else value < best)
        progress.bad_epochs += 1
        if fit.is_best:
            progress.best_value, progress.bad_epochs = value, 0
            progress.best_epoch, progress.best_step = progress.epoch, fit.done
            if fit.keeps_best and not fit.folder:
                kept = fit.steps.exported().items()
                self.best = {path: tf.identity(variable) for path, variable in kept}
        self._check_patience(fit)

    def after_training(self, fit: FitState) -> None:
        if not fit.keeps_best:
            return
        exported = fit.steps.exported()
        if fit.folder:
            step = fit.progress.best_step
            checkpoints.restore(fit.folder, step, exported, partly=True)
        for path, value in self.best.items():
            exported[path].assign(value)

    def _check_patience(self, fit: FitState) -> None:
        fit.stop |= fit.keeps_best and fit.progress.bad_epochs >= self.patience


class Checkpoints(Hook):
    """Saves after each epoch, and every minute within one; goes on from the last save.

    Args:
        folder: Where checkpoints lie; the last and the best stay.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder, self.saved = Path(folder), time.monotonic()

    def restore(self, fit: FitState) -> None:
        fit.folder = self.folder
        last = max(checkpoints.steps(self.folder), default=-1) if fit.is_chief else 0
        # the chief says which, or some might see one that it is about to write
        last = int(strategies.all_reduce_sum(fit.steps.strategy, last))
        if last >= 0:
            fit.resume(self.folder, last)
        self.saved = time.monotonic()

    def after_loop(self, fit: FitState) -> None:
        within = fit.progress.step < fit.steps_per_epoch
        if within and (fit.stop_requested or time.monotonic() - self.saved > SAVE_EVERY):
            fit.check_weights()
            self._save(fit)

    def after_epoch(self, fit: FitState) -> None:
        self._save(fit)
        # nobody reads what the chief is about to write
        strategies.all_reduce_sum(fit.steps.strategy, 0.0)

    def _save(self, fit: FitState) -> None:
        if fit.is_chief:
            fit.steps.optimizer.mark_dense(tf.constant(fit.done, tf.int64))
            state = dataclasses.asdict(fit.progress)
            checkpoints.save(self.folder, fit.done, fit.steps.variables(), state)
            checkpoints.keep(self.folder, {fit.done, fit.progress.best_step})
        self.saved = time.monotonic()


class StopSignal(Hook):
    """Lets SIGTERM, to this or another process of the cluster, end the training after a save."""

    def __init__(self) -> None:
        self.made = False
        self.before: Any = None
        # signals come to the main thread alone
        self.hears = threading.current_thread() is threading.main_thread()

    def begin(self, fit: FitState) -> None:
        if self.hears:
            self.before = signal.signal(signal.SIGTERM, self._note)

    def after_loop(self, fit: FitState) -> None:
        fit.stop_requested = strategies.all_reduce_sum(fit.steps.strategy, float(self.made)) > 0

    def close(self) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def _note(self, *_: object) -> None:
        self.made = True


class ProgressBar(Hook):
    """A bar while it trains, and a line an epoch."""

    bar: tqdm | None = None

    def begin(self, fit: FitState) -> None:
        total = fit.epochs * fit.steps_per_epoch
        silent = {} if fit.is_chief else {"disable": True}
        self.bar = bar(total=total, initial=fit.done, unit="step", **silent)

    def after_loop(self, fit: FitState) -> None:
        if self.bar is not None:
            self.bar.update(fit.loop.steps)
            text = f"loss {fit.loop.loss:.4f}, {fit.loop.rows_per_second:,.0f} rows/s"
            self.bar.set_postfix_str(text)

    def after_epoch(self, fit: FitState) -> None:
        if not fit.is_chief:
            return
        progress, metric = fit.progress, fit.metric
        if progress.epoch == 1:
            tqdm.write(_update_modes(fit.steps.optimizer.modes))
        judged = ""
        if metric in fit.validation:
            best = "  best" if fit.is_best else ""
            judged = f"   validation {metric} {fit.validation[metric]:.4f}{best}"
        rows = "" if fit.visited is None else f"   {fit.visited:,} rows visited"
        tqdm.write(
            f"epoch {progress.epoch:>4}   loss {progress.history[-1]['loss']:.4f}   "
            f"{progress.speeds[-1]:>11,.0f} rows/s{rows}{judged}"
        )

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _update_modes(modes: dict[str, str]) -> str:
    """modes: variable -> dense | sparse."""
    sparse = [path for path, mode in modes.items() if mode == "sparse"]
    return (
        f"sparse updates for {', '.join(sparse) or 'no table'}; dense ones for "
        f"{'the others' if sparse else 'all'}"
    )


class TensorBoard(Hook, Part):
    """Scalars, texts and, if asked for, histograms of the weights.

    TensorBoard sorts groups by name: loss and deciding metric, in `objective`, come first.

    Args:
        folder: Of the event file.
        histograms: Whether weights are shown.
        texts: {name: what makes a Markdown text after each epoch}.
        first: {name: Markdown text} that is written once.
    """

    Settings = TensorBoardSettings

    writer: tf.summary.SummaryWriter | None = None

    def __init__(
        self,
        folder: str | Path,
        histograms: bool = False,
        texts: dict[str, Callable[[], str]] | None = None,
        first: dict[str, str] | None = None,
    ) -> None:
        super().__init__(histograms=histograms)
        self.folder, self.histograms = str(folder), histograms
        self.texts, self.first = texts or {}, first or {}

    def begin(self, fit: FitState) -> None:
        if fit.is_chief:
            self.writer = tf.summary.create_file_writer(self.folder)
        if self.writer and not fit.done:
            with self.writer.as_default(step=0):
                for name, text in self.first.items():
                    tf.summary.text(name, text)

    def after_loop(self, fit: FitState) -> None:
        loop = fit.loop
        self._scalars("objective", fit.done, {"training_loss": loop.loss})
        scalars = {
            "learning_rate": loop.learning_rate,
            "rows_per_second": loop.rows_per_second,
            "gradient_norm": loop.gradient_norm,
        }
        self._scalars("train", fit.done, scalars)

    def after_epoch(self, fit: FitState) -> None:
        others = dict(fit.validation)
        if fit.metric in others:
            decides = {f"validation_{fit.metric}": others.pop(fit.metric)}
            self._scalars("objective", fit.done, decides)
        self._scalars("validation", fit.done, others)
        if not self.writer:
            return
        with self.writer.as_default(step=fit.done):
            for name, make in self.texts.items():
                tf.summary.text(name, make())
            if self.histograms:
                _write_histograms(fit)

    def close(self) -> None:
        if self.writer:
            self.writer.close()

    def _scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        if not self.writer:
            return
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{group}/{name.replace('@', '_at_')}", value)
        self.writer.flush()


def _write_histograms(fit: FitState) -> None:
    """Of the weights; tables by parts, of large ones a choice of rows."""
    model = fit.steps.local
    tables = model.embeddings("user") | model.embeddings("product")
    for path, variable in fit.weights.items():
        every = variable.shape.num_elements() // HISTOGRAM_OF + 1
        some = variable[::every] if every > 1 else tf.convert_to_tensor(variable)
        table = tables.get(path.removesuffix("/table"))
        parts = {path: some}
        if table is not None:
            parts = {f"{path}/{part}": x for part, x in zip(table.widths, table.split(some))}
        for name, values in parts.items():
            tf.summary.histogram(name, values)


class Profile(Hook, Part):
    """TensorBoard's profile of some steps.

    A profile that the training's end cuts short is written, be the end an error. Of the processes
    of a cluster the chief alone writes one; under multi_worker the others cut their steps as it
    does, for they train in step.

    Args:
        folder: Of the profile.
        steps: The first and the last step, counted from 1 over all epochs; (): no profile.
    """

    Settings = ProfileSettings

    def __init__(self, folder: str | Path, steps: tuple[int, ...] = ()) -> None:
        super().__init__(profile_steps=steps)
        self.folder, self.running, self.done = str(folder), False, not steps
        self.first, self.last = steps or (0, 0)

    def begin(self, fit: FitState) -> None:
        self.done |= not fit.is_chief

    def wrap(self, run: Run) -> Run:
        """Returns the inner loop in several parts where the profile begins or ends within it."""

        def parts(iterator: Any, done: int, count: int) -> tuple[float, float]:
            ends = [end for end in (self.first - 1, self.last) if done < end < done + count]
            mean, norm, start = 0.0, 0.0, done
            for end in [*ends, done + count]:
                if self.first <= start + 1 <= self.last and not self.running and not self.done:
                    tf.profiler.experimental.start(self.folder)
                    self.running = True
                loss, norm = run(iterator, start, end - start)
                mean += loss * ((end - start) / count)
                if self.running and end == self.last:
                    # now, not before the next step: validation may come first
                    self._stop()
                if not math.isfinite(loss):
                    break
                start = end
            return mean, norm

        return parts

    def after_training(self, fit: FitState) -> None:
        if not self.running and not self.done:
            print(
                f"profile_steps={self.first},{self.last}: this process did not come by these "
                "steps, so there is no profile."
            )

    def close(self) -> None:
        if self.running:
            self._stop()

    def _stop(self) -> None:
        tf.profiler.experimental.stop()
        self.running, self.done = False, True
