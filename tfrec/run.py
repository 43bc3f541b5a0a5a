"""One run from settings to results: read, split, train, evaluate, export. The only place that joins the rooms."""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec import models, plots, pretrained, tensorboard, workdirs
from tfrec.config import AUTO, Config
from tfrec.data import features, pipeline, sources, splits
from tfrec.data.dataset import Dataset
from tfrec.data.negatives import Sampler, masses
from tfrec.data.splits import Rows
from tfrec.errors import TfrecError, UsageError
from tfrec.evaluation import users
from tfrec.evaluation.candidates import read_candidates
from tfrec.evaluation.evaluate import Evaluator, Outcome
from tfrec.evaluation.ranking import headline
from tfrec.models.base import Recommender
from tfrec.models.knowledge import Knowledge, stated
from tfrec.models.ncf import NeuralCF
from tfrec.models.popularity import Popularity
from tfrec.serving.export import Server, export
from tfrec.training import loop, losses, strategies
from tfrec.training.losses import Loss
from tfrec.training.optimizers import OPTIMIZERS, schedule


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports into config.workdir, and returns what is in metrics.json there.

    The same settings on the same folder resume; a finished run is left as it is.

    Raises:
        UsageError: settings that do not go together or differ from those of the run in the folder, or another process works there.
        TfrecError: broken data, or a loss that is not finite.
    """
    strategy, model, loss, dataset, rows, config = _prepare(config)
    with workdirs.opened(config) as workdir:
        finished = workdir / "metrics.json"
        if finished.exists():
            print(f"{workdir}: this run is finished; here is its result. Take another --workdir to train again.")
            return json.loads(finished.read_text())
        print(_headline(dataset, rows, config))
        record = fit(strategy, model, loss, dataset, rows, config, workdir)
        baselines = fit_baselines(dataset, rows.train)
        result, outcome = measure(model, loss, baselines, dataset, rows, config)
        result |= {"history": record.pop("history"), "train": record}
        result["parameters"] = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        text = _json(result)
        export(make_server(model, loss, dataset, rows, config), workdir / "export")
        tensorboard.project(workdir / "logs", model, dataset, rows.train)
        plots.save(workdir, record["epochs"], plots.of_run(model, dataset, rows, outcome, result, config))
        users.save(workdir, users.figures(outcome, dataset, rows, config))
        workdirs.write(finished, text)
        print(f"pictures, logs and the SavedModel are in {workdir}; try: python scripts/recommend.py --workdir={workdir} --user=ID")
    return result


def validate(config: Config) -> dict[str, Any]:
    """Trains into config.workdir as `train` does, and stops before the test rows: they are not scored, and nothing is exported.

    `train` with the same settings on the same folder goes on from there.

    Returns:
        {"validation": {metric: value}, "train": as in metrics.json}

    Raises:
        UsageError, TfrecError: as train; a UsageError also where there are no validation rows.
    """
    strategy, model, loss, dataset, rows, config = _prepare(config)
    if not len(rows.validation):
        raise UsageError("--validation_fraction=0 leaves no validation rows. Take 0.1.")
    with workdirs.opened(config) as workdir:
        print(_headline(dataset, rows, config))
        record = fit(strategy, model, loss, dataset, rows, config, workdir)
        evaluator = _validator(model, loss, dataset, rows, config)
        figures = evaluator.rating_metrics() if config.model.task == "rating" else evaluator.ranking_metrics()
    return {"validation": figures, "train": {name: value for name, value in record.items() if name != "history"}}


def objective(config: Config) -> tuple[str, bool]:
    """The validation figure that decides, and whether more is better."""
    return ("rmse", False) if config.model.task == "rating" else (f"ndcg@{headline(config.evaluation.k)}", True)


def _prepare(config: Config) -> tuple[tf.distribute.Strategy, Recommender, Loss, Dataset, Rows, Config]:
    """Everything before the folder: a model that refuses the data leaves none."""
    models.check(config.model)
    strategy = strategies.make(config.train)  # before anything touches a device
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.train.seed)
    tf.keras.mixed_precision.set_global_policy(config.train.precision)
    dataset, rows, config = load(config)
    if config.evaluation.candidates_file:
        read_candidates(Path(config.evaluation.candidates_file), dataset)  # before hours of training, not after them
    with strategy.scope():
        model = models.build(dataset, rows.train, config.model)
        loss = make_loss(model, dataset, rows, config)
        if isinstance(model, NeuralCF) and config.model.pretrained:
            pretrained.start(model, dataset, config)
    return strategy, model, loss, dataset, rows, config


def make_loss(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> Loss:
    """Of a closed form, which has none: what takes its scores as they are."""
    return Loss() if model.closed_form else losses.make(config, dataset, rows.train)


def make_server(model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config) -> Server:
    """What is exported."""
    seen, task = np.concatenate([rows.train, rows.validation]), config.model.task
    baselines, unscaled = fit_baselines(dataset, rows.train), dataset.with_scaling("none", rows.train)
    fallbacks: dict[str, Recommender] = {name: baselines[name] for name in ("bias", "popularity")}
    if stated(dataset.user_features).any():
        for kind in {"ranking", task}:
            fallbacks[f"knowledge_{kind}"] = Knowledge(dataset.user_features, dataset.num_products, kind)
            adapt(fallbacks[f"knowledge_{kind}"], unscaled, rows)
    counts = np.bincount(dataset.product[rows.train], minlength=dataset.num_products)
    sampler = Sampler(masses(counts, losses.negatives(config).power))
    return Server(model, loss, fallbacks, dataset, rows.train, seen, sampler, config)


def load(config: Config) -> tuple[Dataset, Rows, Config]:
    """The data set with its targets scaled, its rows, and the settings with nothing left at auto."""
    tables = sources.read(config.data)
    for note in tables.notes:
        print(note)
    dataset = features.build(tables, config.data)
    if config.model.task == "rating" and not dataset.rated:
        raise UsageError("--task=rating: the data have no ratings. Take --task=ranking, or name their column with --rating_column.")
    auto: dict[str, Any] = {}
    if config.data.split == "auto":
        auto["split"] = splits.default(dataset)
    auto |= {name: value for name, value in AUTO[config.model.task].items() if config.flat()[name] in ("auto", None)}
    if not config.workdir:
        auto["workdir"] = workdirs.fresh(f"runs/{config.data.dataset}-{config.model.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    config = config.replace(**auto)
    rows = splits.split(dataset, config.data)
    return dataset.with_scaling(config.data.target_scaling, rows.train), rows, config


def fit(
    strategy: tf.distribute.Strategy, model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config, workdir: Path
) -> dict[str, Any]:
    """Fits the model, and what the loss keeps; returns the figures of "train" in metrics.json, and its "history"."""
    settings, task = config.train, config.model.task
    if model.closed_form:
        began = time.monotonic()
        adapt(model, dataset, rows)
        seconds = time.monotonic() - began
        return {"seconds": seconds, "examples_per_second": len(rows.train) / seconds, "epochs": 1, "best_epoch": 1, "history": []}
    validation, decides = None, ("", False)
    if len(rows.validation):
        evaluator = _validator(model, loss, dataset, rows, config)
        decides = objective(config)
        validation = evaluator.rating_metrics if task == "rating" else evaluator.ranking_metrics
    steps = pipeline.steps_per_epoch(len(rows.train), settings.batch_size)
    rate = schedule(settings.schedule, settings.learning_rate, steps * settings.epochs, settings.warmup_steps, settings.decay)
    with strategy.scope():
        make = OPTIMIZERS[settings.optimizer]
        optimizer = make(rate, settings.sparse_updates, settings.l2 or 0.0, settings.clip_norm, settings.weight_decay)
        trainer = loop.Trainer(strategy, model, loss, optimizer, settings.batch_size, settings.jit_compile)

    row_weight = dataset.worth(rows.train, config.model.rating_power) if config.model.rating_power else None

    def batches(start: tuple[int, int]) -> Any:
        return strategies.iterate(
            strategy,
            lambda slices: pipeline.training_batches(
                dataset, rows.train, task, settings.batch_size, losses.negatives(config), settings.seed, start, slices, row_weight
            ),
        )

    def describe() -> str:
        return tensorboard.recommendations(model, dataset, rows.train, decode=loss.decode)

    progress = loop.fit(trainer, batches, len(rows.train), config, workdir, validation, decides, dataset.fingerprint(), describe)
    settle(model, dataset, rows, config)
    return {
        "seconds": progress.seconds,
        "examples_per_second": statistics.median(progress.speeds),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }


def adapt(model: Recommender, dataset: Dataset, rows: Rows) -> None:
    """Fits a closed form to the training rows."""
    columns = {name: getattr(dataset, name)[rows.train] for name in ("user", "product", "context")}
    model.adapt(columns | {"y": dataset.targets(rows.train)})


def settle(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> None:
    """Makes of the trained weights those that a run keeps; --cold_rows says what becomes of rows that were not trained."""
    model.settle()
    if config.train.cold_rows == "mean":
        users = np.bincount(dataset.user[rows.train], minlength=dataset.num_users) > 0
        products = np.bincount(dataset.product[rows.train], minlength=dataset.num_products) > 0
        model.average_untrained(users, products)


def fit_baselines(dataset: Dataset, rows: np.ndarray) -> dict[str, Popularity]:
    """What a model has to beat, fitted on the same rows in rating units: global_mean, bias and popularity."""
    examples = {"user": dataset.user[rows], "product": dataset.product[rows], "y": dataset.rating[rows]}
    made = {}
    for name, task, sweeps in (("global_mean", "rating", 0), ("bias", "rating", 10), ("popularity", "ranking", 0)):
        made[name] = Popularity(dataset.num_users, dataset.num_products, task, sweeps)
        made[name].adapt(examples)
    return made


def measure(
    model: Recommender, loss: Loss, baselines: dict[str, Popularity], dataset: Dataset, rows: Rows, config: Config
) -> tuple[dict[str, Any], Outcome]:
    """The model on validation and test rows, and the baselines on the test rows; and what the model made of the test rows.

    In a ranking run the baselines are ranked only. global_mean, which ranks nothing, has rating metrics only.
    """
    task, seen = config.model.task, np.sort(np.concatenate([rows.train, rows.validation]))
    result: dict[str, Any] = {"model": config.model.model, "task": task, "split": config.data.split}
    if len(rows.validation):
        result["validation"] = _validator(model, loss, dataset, rows, config).metrics()
    evaluator = Evaluator(model, task, dataset, rows.test, seen, config.evaluation, rows.train, loss.decode)
    outcome = evaluator.outcome()
    result["test"], result["slices"] = evaluator.metrics(outcome), evaluator.slices(outcome)
    result["baselines"] = {}
    unscaled = dataset.with_scaling("none", rows.train)
    for name, baseline in baselines.items():
        if baseline.task == "rating" and not dataset.rated:
            continue
        kind = baseline.task if task == "rating" else "ranking"
        evaluator = Evaluator(baseline, kind, unscaled, rows.test, seen, config.evaluation, rows.train)
        if name != "global_mean":
            result["baselines"][name] = evaluator.metrics()
        elif task == "rating":
            result["baselines"][name] = evaluator.rating_metrics()
    return result, outcome


def _validator(model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config) -> Evaluator:
    """On the validation rows; --candidates_file holds test rows, so it has no say here."""
    settings = dataclasses.replace(config.evaluation, candidates_file="")
    return Evaluator(model, config.model.task, dataset, rows.validation, rows.train, settings, decode=loss.decode)


def _json(result: dict[str, Any]) -> str:
    try:
        return json.dumps(result, indent=2, allow_nan=False) + "\n"
    except ValueError:
        raise TfrecError("a metric is not finite: the model has diverged. Lower --learning_rate, or set --clip_norm.") from None


def _headline(dataset: Dataset, rows: Rows, config: Config) -> str:
    counts = f"{len(rows.train):,} rows to train, {len(rows.validation):,} to validate, {len(rows.test):,} to test"
    return (
        f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_products:,} products, {len(dataset):,} ratings\n"
        f"{config.model.model}, {config.model.task}, split {config.data.split}: {counts}\n"
        f"--workdir={config.workdir}"
    )
