"""One run from settings to results.

Read, split, train, evaluate, export. The only place that joins the rooms.
"""

import contextlib
import gc
import math
import random
import statistics
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data import splits
from tfrec.data.interactions import Interactions, Split
from tfrec.data.memory import in_memory
from tfrec.errors import Diverged, TfrecError, UsageError
from tfrec.evaluation import baselines as references
from tfrec.evaluation import fallbacks
from tfrec.evaluation.baselines import Baselines
from tfrec.evaluation.candidates import read_candidates
from tfrec.evaluation.evaluate import Evaluator, Predictions, nothing_to_rank
from tfrec.evaluation.fallbacks import Fallbacks
from tfrec.evaluation.ranking import primary_k
from tfrec.evaluation.results import Result
from tfrec.experiments import (
    loading,
    own_parts,
    parts,
    per_user,
    picks,
    plots,
    pretrained,
    refit,
    tensorboard,
    workdirs,
)
from tfrec.experiments.config import Config, flag_line, make_config
from tfrec.models import ease
from tfrec.models.base import Recommender
from tfrec.models.ncf import NeuralCF
from tfrec.serving.export import ServingModule, export
from tfrec.serving.recommend import History, Ids, answer
from tfrec.system import outputs, progress, sealed
from tfrec.system.machine import free_memory
from tfrec.system.text import number, said, shown
from tfrec.training import checkpoints, strategies
from tfrec.training.hooks import (
    Checkpoints,
    EarlyStopping,
    Hook,
    Profile,
    ProgressBar,
    StopSignal,
    TensorBoard,
)
from tfrec.training.state import finalize, training_fingerprint


class Run:
    """A run: its settings, its data, its model and its folder.

    After a refit the split's training rows are those that the model was trained anew on, and none
    are left to validate; with refit=all none to test.

    `tfrec.train` makes one; `Run.open` takes a finished one up again.

    Args:
        settings: All of them, with nothing left at auto.
        split: Its data.
        model: Made for split.train.
        strategy: None: the current one.

    Example:
        >>> run = tfrec.Run.open("runs/a")
        >>> print(run.metrics)
        >>> run.recommend(user=42, k=5)
    """

    def __init__(
        self,
        settings: Config,
        split: Split,
        model: Recommender,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        self.settings, self.split, self.model = settings, split, model
        self.strategy = strategy or tf.distribute.get_strategy()
        self.is_chief = strategies.is_chief(self.strategy)
        self.was_finished = False  # before `train` was called
        # what pretrained weights were trained on
        self._pretrained_on = split if settings.get("pretrained", ()) else None
        self.kept = "checkpoints"  # the folder of the model that is kept in the end
        self.picked: picks.Picked = {}  # settings of a closed form that were left open

    @classmethod
    def begin(cls, settings: Config) -> "Run":
        """Reads the data and makes the model; there is no folder yet, so that a model which
        refuses the data leaves none.

        Raises:
            UsageError: The settings or the data do not suit each other.
            TfrecError: The data are broken.
        """
        strategy = _strategy(settings)
        split, settings = loading.load(settings)
        if settings.evaluation.candidates_file:  # before hours of training, not after them
            read_candidates(Path(settings.evaluation.candidates_file), split.catalog)
        if settings.model == "ease":
            _check_memory(split)
        model = _make_model(split.train, settings, strategy)
        if isinstance(model, NeuralCF) and settings.get("pretrained", ()):
            pretrained.start(model, split, settings)
        _check_ranking(model, split, settings)
        return cls(settings, split, model, strategy)

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Returns a finished run, with its data read and its model as it was kept.

        Raises:
            UsageError: There is no finished run in the folder.
            TfrecError: The data have changed, or a checkpoint is damaged.
        """
        folder = Path(folder)
        split, settings = loading.load(workdirs.settings(folder))
        for line in own_parts.changed(folder):
            print(line)
        run = cls(settings, split, parts.make_trained(split.train, settings))
        run.reopen()
        return run

    @property
    def folder(self) -> Path:
        """Returns where everything of the run is."""
        return Path(self.settings.workdir)

    @property
    def task(self) -> str:
        """Returns "rating" or "ranking"."""
        return self.settings.task

    @cached_property
    def record(self) -> dict[str, Any]:
        """Returns what is in metrics.json: test, validation, baselines, slices, history, ..."""
        return workdirs.metrics(self.folder)

    @property
    def metrics(self) -> Result:
        """Metrics on the test rows, with those of the baselines."""
        return Result(self.settings.model, self.record["test"], self.record["baselines"])

    @cached_property
    def baselines(self) -> Baselines:
        """Returns what the model has to beat, fitted to the same rows."""
        return references.fit(self.split.train)

    @cached_property
    def fallbacks(self) -> Fallbacks:
        """Returns what answers where the model knows nothing."""
        return fallbacks.make(self.model, self.split.train, self.baselines)

    def recommend(self, user: Ids = None, k: int = 10, history: History = None) -> pd.DataFrame:
        """Returns the best products of one or more users, as tfrec.recommend does.

        Args:
            user: A raw id, or several.
            k: How many products.
            history: What somebody who is not in the data has rated, in place of `user`.
        """
        return answer(self._server, self.split.catalog, user, k, history)

    @cached_property
    def _server(self) -> ServingModule:
        return ServingModule(self.model, self.split, self.fallbacks)

    def export(self, folder: str | Path) -> None:
        """Writes the SavedModel, as tfrec.export does.

        Args:
            folder: New, empty, or an older export. It is whole or not there.

        Raises:
            UsageError: The folder holds something else.
            TfrecError: It cannot be written.
        """
        outputs.check_export(Path(folder))
        export(ServingModule(self.model, self.split, self.fallbacks), Path(folder))

    def train(self) -> None:
        """Trains, evaluates and exports into the folder.

        The same settings on the same folder resume; a finished run is left as it is.

        Raises:
            UsageError: The folder holds a run of other settings, or another process works there.
            Diverged: A loss, a metric or a weight is not finite.
            Preempted: SIGTERM came in training, or another process of the cluster is lost.
        """
        if self.is_chief:
            self._run_chief()
        elif not (self.folder / "metrics.json").exists():
            # in step, until the chief has written the results
            epochs = self.fit(self.folder)["best_epoch"]
            for part in refit.NAMES:
                self.refit(self.folder, epochs, part)
            strategies.all_reduce_sum(self.strategy, 0.0)

    def _run_chief(self) -> None:
        """The chief's part, and that of a process that trains alone."""
        with workdirs.open_workdir(self.settings) as folder:
            own_parts.keep(self.settings, folder)
            if (folder / "metrics.json").exists():
                self.was_finished = True
                print(
                    f"{said(str(folder))}: this run is finished; here is its result. Take another "
                    "--workdir to train again."
                )
                return
            print(self._headline())
            # metrics.json tells by it whether the files have changed
            fingerprint = self.split.fingerprint
            trained = self.fit(folder)
            validated = {}
            if len(self.split.validation):
                validated["validation"] = self.validator().metrics()
            validated |= self.refit(folder, trained["best_epoch"], "validation")
            result, predictions, evaluator = self.evaluate()
            result |= validated
            result |= {"history": trained.pop("history"), "train": trained}
            result |= {"picked": self.picked} if self.picked else {}
            result["data"] = fingerprint
            result["parameters"] = sum(int(np.prod(w.shape)) for w in self.model.trainable_weights)
            _json(result)  # fails before anything is written
            metric, _ = objective(self.settings)
            metrics = {
                f"{part} {metric}": result[part][metric]
                for part in ("validation", "test")
                if metric in result.get(part, {})
            }
            logs, epoch = folder / "logs", trained["best_epoch"]
            tensorboard.result(logs, self.settings.flat(), metrics, epoch)
            tensorboard.project(logs, self.model, self.split.train)
            figures = plots.of_run(self.model, self.split, predictions, result, evaluator)
            plots.save(folder, trained["epochs"], figures)
            per_user.save(folder, per_user.metrics(predictions, evaluator))
            del predictions, evaluator, figures
            result |= self.refit(folder, trained["best_epoch"], "test")
            self.export(folder / "export")
            workdirs.write(folder / "metrics.json", _json(result))
            strategies.all_reduce_sum(self.strategy, 1.0)  # the others may go

    def validate(self) -> dict[str, Any]:
        """Trains into the folder as `train` does, and stops before the test rows: they are not
        scored, and nothing is exported.

        `train` with the same settings on the same folder goes on from there.

        Returns:
            {"validation": {metric: value}, "train": as in metrics.json}

        Raises:
            UsageError, TfrecError: As train; a UsageError also where there are no validation rows.
        """
        if not len(self.split.validation):
            raise UsageError("--validation_fraction=0 leaves no validation rows. Take 0.1.")
        with workdirs.open_workdir(self.settings) as folder:
            print(self._headline())
            trained = self.fit(folder)
        evaluator, rating = self.validator(), self.task == "rating"
        metrics = evaluator.rating_metrics() if rating else evaluator.ranking_metrics()
        del trained["history"]
        return {"validation": metrics, "train": trained}

    def fit(self, folder: Path) -> dict[str, Any]:
        """Fits the model, and what its loss keeps.

        Returns:
            The metrics of "train" in metrics.json, and its "history".
        """
        if self.model.closed_form:
            self._pick()
            return self._fit_closed_form()
        trainer = parts.make_trainer(self.strategy, self.model, self.settings)
        validation = self.split.validation if len(self.split.validation) else None
        progress = trainer.fit(self.split.train, validation, hooks=self._hooks(folder))
        return {
            "seconds": progress.seconds,
            "examples_per_second": statistics.median(progress.speeds),
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "history": progress.history,
        }

    def refit(self, folder: Path, epochs: int, part: str) -> dict[str, Any]:
        """Trains anew on the training rows and those of another part, where the settings ask for
        it.

        Args:
            folder: The run's.
            epochs: How many.
            part: "validation" or "test".

        Returns:
            {its name in metrics.json: {"rows", "epochs", "seconds"}}, or nothing.
        """
        if not refit.wanted(self.settings, self.split, part):
            return {}
        name = refit.NAMES[part]
        self._take_rows(part)
        rows = len(self.split.train)
        if self.is_chief:
            for_epochs = "" if self.model.closed_form else f" for {number(epochs, 'epoch')}"
            which = (
                "all rows, to be exported" if part == "test" else "those that validated among them"
            )
            print(f"training anew{for_epochs} on {rows:,} rows, {which}")
        if isinstance(self.model, NeuralCF) and self._pretrained_on is not None:
            pretrained.start(self.model, self._pretrained_on, self.settings)
        if self.model.closed_form:
            fitted = self._fit_closed_form()
            return {name: {"rows": rows, "epochs": 1, "seconds": fitted["seconds"]}}
        trainer = parts.make_trainer(self.strategy, self.model, self.settings)
        progress = trainer.fit(self.split.train, hooks=refit.hooks(folder / name, epochs))
        return {name: {"rows": rows, "epochs": progress.epoch, "seconds": progress.seconds}}

    def _take_rows(self, part: str) -> None:
        """Makes split and model those of a refit with the rows of a part."""
        self.split = self.split.refitted(part, self.settings.data.positive_from)
        self.kept = refit.NAMES[part]
        for name in ("baselines", "fallbacks", "_server"):  # made of the rows before
            vars(self).pop(name, None)
        self._make_anew(self.picked)

    def _make_anew(self, picked: picks.Picked) -> None:
        """Makes the model anew for split.train, with what was left open at what was picked."""
        del self.model
        gc.collect()  # a model's graphs hold it, and two large ones may not fit
        settings = self.settings.replace(**picked)
        self.model = _make_model(self.split.train, settings, self.strategy)

    def _pick(self) -> None:
        """Picks what the settings of a closed form leave open, on the validation rows."""
        choices = picks.left_open(self.settings)
        if not self.split.train.timed:
            choices.pop("recency", None)
        if not choices or not len(self.split.validation):
            return
        metric, more_is_better = objective(self.settings)
        costs: list[float] = []

        def cost(picked: picks.Picked) -> float:
            self._make_anew(picked)
            self.model.fit_closed_form(self.split.train)
            evaluator = self.validator()
            rating = self.task == "rating"
            found = evaluator.rating_metrics() if rating else evaluator.ranking_metrics()
            fits.update()
            costs.append(found.get(metric, math.nan) * (-1 if more_is_better else 1))
            return costs[-1]

        with progress.bar(desc="picking settings", unit="fit", delay=2) as fits:
            found = picks.search(choices, cost)
        self.picked = found if math.isfinite(costs[0]) else {}
        self._make_anew(self.picked)
        if not self.picked:  # no validation row is relevant
            return
        chosen = " ".join(flag_line(name, value) for name, value in self.picked.items())
        print(f"picked on the validation rows: {chosen}")

    def _fit_closed_form(self) -> dict[str, Any]:
        began = time.monotonic()
        self.model.fit_closed_form(self.split.train)
        seconds = time.monotonic() - began
        return {
            "seconds": seconds,
            "examples_per_second": len(self.split.train) / seconds,
            "epochs": 1,
            "best_epoch": 1,
            "history": [],
        }

    def _hooks(self, folder: Path) -> list[Hook]:
        """Returns the hooks of a run; checkpoints come last, to save what the others have noted."""
        config = self.settings

        def recommendations() -> str:
            sample = self.split.sample(config.evaluation.ranked_users)
            return tensorboard.recommendations(self.model, sample)

        lines = "".join(f"    {shown(line)}\n" for line in config.flagfile().splitlines())
        return [
            StopSignal(),
            EarlyStopping(patience=config.early_stopping),
            ProgressBar(),
            TensorBoard(
                folder / "logs",
                config.histograms,
                texts={"recommendations": recommendations},
                first={"config": lines},
            ),
            Profile(folder / "logs", config.profile_steps),
            Checkpoints(folder / "checkpoints"),
        ]

    def reopen(self) -> None:
        """Brings the weights of a finished run, if its data are what they were.

        Raises:
            TfrecError: The data have changed, or a checkpoint is damaged.
        """
        if self.record["data"] != self.split.fingerprint:
            raise TfrecError(
                f"{self.folder}: the data have changed since this run. Put back those that it was "
                "trained on, or train anew."
            )
        self.picked = self.record.get("picked", {})
        if self.picked:
            self._make_anew(self.picked)
        for part, name in refit.NAMES.items():
            if name in self.record:
                self._take_rows(part)
        self.restore()

    def restore(self) -> None:
        """Brings the weights that the folder has kept."""
        model = self.model
        if model.closed_form:
            model.fit_closed_form(self.split.train)
            return
        folder = self.folder / self.kept
        state = checkpoints.last(folder)
        if state["data"] != training_fingerprint(self.split):
            raise TfrecError(f"{self.folder}: the data have changed since this run.")
        weights = {f"model/{path}": weight for path, weight in model.named_weights().items()}
        of_loss = model.output.loss.named_weights().items()
        weights |= {f"loss/{name}": weight for name, weight in of_loss}
        checkpoints.restore(folder, state["best_step"], weights, partly=True)
        finalize(model, self.split, self.settings.cold_embeddings)

    def evaluate(self) -> tuple[dict[str, Any], Predictions, Evaluator]:
        """Returns the model and the baselines on the test rows, and what the model made of them: as
        it is served, unless --nofallbacks.
        """
        config, split, task = self.settings, self.split, self.task
        answers = self.fallbacks if config.evaluation.fallbacks else None
        evaluator = Evaluator(self.model, split, config.evaluation, task=task, fallbacks=answers)
        predictions = evaluator.predictions()
        result = {
            "model": config.model,
            "task": task,
            "split": config.data.split,
            "test": evaluator.metrics(predictions),
            "slices": evaluator.slices(predictions),
            "baselines": references.measure(self.baselines, split, task, config.evaluation),
        }
        return result, predictions, evaluator

    def validator(self) -> Evaluator:
        """Of the bare model on the validation rows, which decide on its weights.

        Raises:
            UsageError: There are none, or the model was trained anew on them.
        """
        if not len(self.split.validation):
            raise UsageError(
                "there are no validation rows, or the model was trained anew on them (--refit): "
                "metrics.json has what the first model made of them."
            )
        return Evaluator(self.model, self.split, self.settings.evaluation, part="validation")

    def _headline(self) -> str:
        """Returns the lines that say what is trained on what."""
        config, catalog = self.settings, self.split.catalog
        train, validation, test = map(len, self.split.parts())
        counts = f"{train:,} rows to train, {validation:,} to validate, {test:,} to test"
        counts += _sampled(self.split, config.evaluation.ranked_users)
        counts += "".join(f"\n{line}" for line in splits.surprises(self.split, config.data))
        if config.data.feature_columns("products") and not self.model.uses_product_features:
            counts += f"\nnote: --model={config.model} reads no features of products"
        why_not = refit.why_not(config, self.split)
        if config.refit != "none" and validation and why_not:
            counts += f"\nnote: {why_not}: the rows that validate are not trained on (--refit)"
        rows = "ratings" if catalog.rated else "rows"
        return (
            f"{said(catalog.name)}: {catalog.num_users:,} users, {catalog.num_products:,} "
            f"products, {train + validation + test:,} {rows}\n"
            f"{config.model}, {config.task}, split {config.data.split}: {counts}\n"
            f"--workdir={said(config.workdir)}"
        )


def train(config: Config) -> Run:
    """Makes the run of the settings, and trains it; under parameter servers a process that is no
    chief serves.

    Raises:
        UsageError, TfrecError, Diverged, Preempted: As Run.begin and Run.train.
    """
    name = config.strategy_name
    strategies.run_server(name)
    with strategies.raise_on_lost_worker(name):
        run = Run.begin(config)
        run.train()
        return run


def train_with(**settings: Any) -> Run:
    """Trains, evaluates and exports a run, as scripts/train.py does.

    Args:
        settings: Those of the command line, without the dashes; `python scripts/train.py --help`
            lists them. TensorFlow's random seed stays set; deterministic and virtual_devices
            cannot be undone in a process.

    Returns:
        The run, with .model, .split, .metrics and .recommend.

    Raises:
        UsageError: Settings that do not go together, or that no part of the run has.
        TfrecError: The data are broken, or training failed.

    Example:
        >>> run = tfrec.train(model="hybrid", dataset="latest-small", workdir="runs/a")
        >>> print(run.metrics)
    """
    policy = tf.keras.mixed_precision.global_policy()
    of_python, of_numpy = random.getstate(), np.random.get_state()
    try:
        run = train(make_config(**settings))
        if run.was_finished:
            run.reopen()
        return run
    except UsageError as error:
        raise UsageError(str(error).removeprefix("--")) from None
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
        random.setstate(of_python)
        np.random.set_state(of_numpy)


def validate(config: Config) -> dict[str, Any]:
    """Trains the run of the settings and returns its validation metrics, as Run.validate."""
    return Run.begin(config).validate()


def objective(config: Config) -> tuple[str, bool]:
    """Returns the validation metric that decides, and whether more is better."""
    return (
        ("rmse", False)
        if config.task == "rating"
        else (f"ndcg@{primary_k(config.evaluation.k)}", True)
    )


def _strategy(config: Config) -> tf.distribute.Strategy:
    """Returns the strategy of the settings, and what must be set before TensorFlow touches a
    device.
    """
    name = config.strategy_name
    if name in strategies.CLUSTER and not config.workdir:
        raise UsageError(
            f"--strategy={name}: name a --workdir that all machines of the cluster see."
        )
    strategy = strategies.make(name, config.get("virtual_devices", 0))
    if config.trained:
        with parts.dashes():
            strategies.check(strategy, config.batch_size, config.jit_compile)
    if config.get("deterministic", False):
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.get("seed", 0))
    # a closed form makes counts and inverses, which bfloat16 would spoil
    tf.keras.mixed_precision.set_global_policy(config.get("precision", "float32"))
    return strategy


def _make_model(
    train: Interactions, settings: Config, strategy: tf.distribute.Strategy
) -> Recommender:
    """Returns a model made in the strategy's scope; on servers fit makes another one."""
    on_servers = strategies.has_servers(strategy)
    with contextlib.nullcontext() if on_servers else strategy.scope():
        return parts.make_trained(train, settings)


def _sampled(split: Split, most: int) -> str:
    """Returns a line where metrics are of some of the users only."""
    sample = split.sample(most)
    if sample is not split:
        of = np.union1d(sample.validation.users(), sample.test.users())
        return (
            f"\nmetrics are of {len(of):,} of the users (--ranked_users): "
            f"{len(sample.validation):,} rows to validate, {len(sample.test):,} to test"
        )
    tested = len(split.test.users())
    if most and tested > most:
        return f"\nranking metrics are of {most:,} of the {tested:,} tested users (--ranked_users)"
    return ""


def _check_memory(split: Split) -> None:
    """Says what ease will take where that is much.

    Raises UsageError where the machine has less.
    """
    rows = [split.train, split.validation] if split.train.in_memory else [split.train]
    counts = [np.sum([part.counts(side) for part in rows], axis=0) for side in ("user", "product")]
    trained = (int(np.count_nonzero(count)) for count in counts)
    needed, free = ease.memory(*map(len, counts), *trained), free_memory()
    products = split.catalog.num_products
    gigabytes = f"{needed / 1e9:.1f} GB for the weights between {products:,} products"
    if needed > free:
        raise UsageError(
            f"--model=ease: it would take about {gigabytes}, and {free / 1e9:.1f} GB are free. "
            "Take --model=ials or item_knn, or leave out rare products."
        )
    if needed > 1e9:
        print(f"ease will take about {gigabytes}")


def _check_ranking(model: Recommender, split: Split, config: Config) -> None:
    """Says where no ranking metric can be made of the test rows.

    Raises UsageError where the validation rows cannot stop the training.
    """
    if not config.evaluation.ranks(config.task):
        return
    threshold = config.evaluation.relevance_threshold
    train, validation, test = in_memory(split.sample(config.evaluation.ranked_users))
    masked = config.evaluation.mask_seen
    seen = [train] if masked else []
    why = nothing_to_rank(validation, seen, threshold) if len(validation) else ""
    if why and config.task == "ranking" and not model.closed_form:
        raise UsageError(
            f"no validation row is relevant: {why}. Change that, or take --validation_fraction=0 "
            "and a fixed --epochs."
        )
    why = nothing_to_rank(test, [train, validation] if masked else [], threshold)
    if why and not config.evaluation.candidates_file and strategies.is_chief(config.strategy_name):
        print(f"note: there will be no ranking metrics, as no test row is relevant: {why}")


def _json(result: dict[str, Any]) -> str:
    try:
        return sealed.dumps(result, indent=2, allow_nan=False) + "\n"
    except ValueError:
        raise Diverged(
            "a metric is not finite: the model has diverged. Lower --learning_rate, or set "
            "--clip_norm."
        ) from None
