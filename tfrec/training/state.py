"""Where a training is: what Trainer.fit and its hooks share."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import tensorflow as tf

from tfrec.data.batches import steps_per_epoch
from tfrec.data.interactions import Split
from tfrec.errors import Diverged, TfrecError, UsageError, nearest
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.ranking import primary_k
from tfrec.training import checkpoints, strategies
from tfrec.training.settings import TrainerSettings
from tfrec.training.steps import Steps

ADVICE = "The last good checkpoint is kept. Lower learning_rate, or set clip_norm."
ERRORS = ("rmse", "mae", "mape")  # metrics of which less is better

Run: TypeAlias = Callable[[Any, int, int], tuple[float, float]]


@dataclass
class Progress:
    """Where a training is; saved with each checkpoint, and what Trainer.fit returns."""

    epoch: int = 0
    step: int = 0  # within the epoch
    best_value: float | None = None  # of the validation metric that decides
    best_epoch: int = 0
    best_step: int = 0  # over all epochs: names the checkpoint of the best weights
    bad_epochs: int = 0  # since the best one
    seconds: float = 0.0  # of steps and validation
    speeds: list[float] = field(default_factory=list)  # rows/s of each inner loop
    # of each epoch: loss and the validation metric that decides
    history: list[dict[str, float]] = field(default_factory=list)
    data: int = 0  # fingerprint of the rows
    input_shards: int = 1  # into which an epoch's rows on disk are cut
    visited: int = 0  # rows in this epoch; one whose worker died is visited again
    loss: float = 0.0  # sum over the steps of this epoch


@dataclass(frozen=True)
class Loop:
    """Figures of an inner loop: mean loss, last gradient's norm and learning rate."""

    steps: int
    loss: float
    gradient_norm: float
    learning_rate: float
    rows_per_second: float


class FitState:
    """A training under way.

    Args:
        steps: Makes the steps.
        settings: Of the Trainer.
        split: Its train and validation are used.
        evaluator: Of the validation rows; None where there are none.
    """

    def __init__(
        self,
        steps: Steps,
        settings: TrainerSettings,
        split: Split,
        evaluator: Evaluator | None,
    ) -> None:
        self.steps, self.settings, self.split = steps, settings, split
        self.model, self.train = steps.local, split.train
        self.is_chief = strategies.is_chief(steps.strategy)
        self.validator = evaluator
        self.epochs = settings.epochs
        self.steps_per_epoch = steps_per_epoch(len(self.train), settings.batch_size)
        shards = 1 if self.train.in_memory else strategies.input_shards(steps.strategy)
        fingerprint = training_fingerprint(split)
        self.progress = Progress(data=fingerprint, input_shards=shards)
        self.loop = Loop(0, 0.0, 0.0, 0.0, 0.0)
        self.validation: dict[str, float] = {}
        self.weights: dict[
            str, tf.Variable
        ] = {}  # trainable ones by path, as this process has them
        self.visited: int | None = (
            None  # rows of the last epoch, where that does not go without saying
        )
        self.folder: Path | None = None  # of checkpoints
        self.is_best = self.stop = self.keeps_best = False
        self.stop_requested = False
        self.decide_by("")

    @property
    def done(self) -> int:
        """Steps made, over all epochs."""
        return self.steps.steps_done()

    def decide_by(self, metric: str | Callable[[Any], float], more_is_better: bool = True) -> None:
        """Names the validation metric that decides.

        Raises:
            UsageError: There is no such metric.
        """
        self.function = None if isinstance(metric, str) else metric
        name = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
        self.metric, self.more_is_better = name, more_is_better
        if self.function or self.validator is None:
            return
        k = self.validator.config.k
        rating = self.model.task == "rating"
        self.metric = name or ("rmse" if rating else f"ndcg@{primary_k(k)}")
        self.more_is_better = self.metric not in ERRORS
        known = self.validator.metric_names()
        if self.metric not in known:
            raise UsageError(
                f"metric={self.metric}: expected one of {', '.join(known)}."
                f"{nearest(self.metric, known)}"
            )

    def validate(self) -> None:
        """Makes the validation metrics of the weights that would be kept now; the chief's, and all
        workers go by the one that decides.
        """
        if self.validator is None:
            return
        found = {self.metric: 0.0}
        if self.is_chief:
            with as_kept(self.model, self.split, self.settings.cold_embeddings):
                found = self._metrics()
        shared = strategies.all_reduce_sum(self.steps.strategy, found[self.metric])
        self.validation = found | {self.metric: shared}

    def _metrics(self) -> dict[str, float]:
        validator = self.validator
        assert validator is not None
        if self.function:
            predictions = validator.predictions()
            own = {self.metric: float(self.function(predictions))}
            return validator.metrics(predictions) | own
        rating = self.model.task == "rating"
        found = validator.rating_metrics() if rating else validator.ranking_metrics()
        if self.metric not in found:
            found |= validator.ranking_metrics()
        if self.metric not in found:
            raise UsageError(
                f"metric={self.metric}: the validation rows have none (it needs ratings other than "
                "0, users with two unlike ratings, or products to rank)."
            )
        return found

    def end_epoch(self) -> None:
        """Brings the weights here, and validates them."""
        began, progress = time.monotonic(), self.progress
        self.weights = self.steps.pull()
        self.validate()
        if self.is_chief:
            self.check_weights()
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.seconds += time.monotonic() - began
        decides = {name: self.validation[name] for name in [self.metric] if name in self.validation}
        progress.history.append({"loss": progress.loss / self.steps_per_epoch} | decides)
        servers = strategies.has_servers(self.steps.strategy)
        self.visited = progress.visited if servers else None
        progress.loss, progress.visited, self.is_best = 0.0, 0, False
        if not self.keeps_best:
            progress.best_epoch, progress.best_step = progress.epoch, self.done

    def check_weights(self) -> None:
        """Raises Diverged where a weight is not finite."""
        for path, variable in self.steps.trainable.items():
            if not tf.reduce_all(tf.math.is_finite(variable)):
                raise Diverged(f"weight {path} is not finite after step {self.done:,}. {ADVICE}")

    def resume(self, folder: Path, step: int) -> None:
        """Goes on from a checkpoint.

        Raises:
            TfrecError: It is damaged, or of other rows.
        """
        progress, shards = _read(folder, step), self.progress.input_shards
        if progress.data != self.progress.data:
            raise TfrecError(
                f"{folder.parent}: the data have changed since this run began. Take another "
                "--workdir."
            )
        if progress.step and progress.input_shards != shards:
            raise TfrecError(
                f"{folder.parent}: it stopped within epoch {progress.epoch + 1}, whose rows on "
                f"disk were cut among {progress.input_shards} machines, and would now be cut among "
                f"{shards}. Go on with as many as before."
            )
        if self.keeps_best and progress.best_step not in (0, step):
            # is it readable? It is wanted in the end
            exported = self.steps.exported()
            checkpoints.restore(folder, progress.best_step, exported, partly=True)
        checkpoints.restore(folder, step, self.steps.variables())
        progress.input_shards, self.progress = shards, progress
        if self.is_chief:
            print(f"going on after epoch {progress.epoch}, step {progress.step} of the next")


def training_fingerprint(split: Split) -> int:
    """Returns a number that changes with the rows to train and to validate, and with the
    features.
    """
    nobody = split.train.of_users(split.train.users()[:0])
    return Split(split.train, split.validation, nobody).fingerprint


def finalize(model: Any, split: Split, cold_embeddings: str) -> None:
    """Makes of the trained weights those that are kept."""
    model.finalize()
    if cold_embeddings == "mean":
        model.impute_cold_embeddings(*map(split.cold_weights, ("user", "product")))


@contextlib.contextmanager
def as_kept(model: Any, split: Split, cold_embeddings: str) -> Iterator[None]:
    """In its scope the weights are those that would be kept if training ended now.

    Afterwards training goes on as if nothing had been.
    """
    tables = model.embeddings("user") | model.embeddings("product")
    before = {path: tf.identity(table.table.value) for path, table in tables.items()}
    # scores are float32 wherever they are judged or served: in bfloat16 many would tie
    policies = model.set_policies()
    open_yet = [layer for layer in model.implicit_factors().values() if not layer.finalized]
    finalize(model, split, cold_embeddings)
    try:
        yield
    finally:
        model.set_policies(policies)
        for path, table in tables.items():
            table.table.assign(before[path])
        for layer in open_yet:
            layer.finalized = False


def _read(folder: Path, step: int) -> Progress:
    try:
        return Progress(**checkpoints.state(folder, step))
    except TypeError:
        path = folder / f"step-{step}" / "state.json"
        raise TfrecError(
            f"{path}: it is damaged, or of another version of tfrec. Remove {folder}: the run "
            "begins anew."
        ) from None
