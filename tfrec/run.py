"""One run from settings to results: read, split, train, evaluate, export. The only place that joins the rooms."""

import contextlib
import dataclasses
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec import models, plots, pretrained, tensorboard, workdirs
from tfrec.config import AUTO, Config, DataConfig
from tfrec.data import blocks, features, from_disk, pipeline, sources, splits, trained
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
from tfrec.training.cluster import ClusterTrainer
from tfrec.training.losses import Loss
from tfrec.training.optimizers import OPTIMIZERS, schedule


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports into config.workdir, and returns what is in metrics.json there.

    The same settings on the same folder resume; a finished run is left as it is.

    Raises:
        UsageError: settings that do not go together or differ from those of the run in the folder, or another process works there.
        TfrecError: broken data, or a loss that is not finite.
    """
    strategies.serve(config.train)
    strategy, model, loss, dataset, rows, config = _prepare(config)
    if not strategies.is_chief(config.train):
        return _follow(strategy, model, loss, dataset, rows, config)
    with workdirs.opened(config) as workdir, strategies.watched(strategy):
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
        export(make_server(model, loss, baselines, dataset, rows, config), workdir / "export")
        tensorboard.project(workdir / "logs", model, dataset, rows.train)
        plots.save(workdir, record["epochs"], plots.of_run(model, dataset, rows, outcome, result, config))
        users.save(workdir, users.figures(outcome, dataset, rows, config))
        workdirs.write(finished, text)
        strategies.total(strategy, 1.0)  # the others may go
        print(f"pictures, logs and the SavedModel are in {workdir}; try: python scripts/recommend.py --workdir={workdir} --user=ID")
    return result


def _follow(
    strategy: tf.distribute.Strategy, model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config
) -> dict[str, Any]:
    """The part of a worker that is not the chief: it trains in step, and goes when the chief has written the results."""
    workdir = Path(config.workdir)
    with strategies.watched(strategy):
        if not (workdir / "metrics.json").exists():
            fit(strategy, model, loss, dataset, rows, config, workdir)
            strategies.total(strategy, 0.0)
    return {}


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
    if config.train.strategy in strategies.CLUSTER and not config.workdir:
        raise UsageError(f"--strategy={config.train.strategy}: name a --workdir that all machines of the cluster see.")
    strategy = strategies.make(config.train)  # before anything touches a device
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.train.seed)
    tf.keras.mixed_precision.set_global_policy(config.train.precision)
    dataset, rows, config = load(config)
    if config.evaluation.candidates_file:
        read_candidates(Path(config.evaluation.candidates_file), dataset)  # before hours of training, not after them
    with contextlib.nullcontext() if strategies.has_servers(strategy) else strategy.scope():  # fit puts another on the servers
        model = models.build(dataset, rows.train, config.model)
        loss = make_loss(model, dataset, rows, config)
        if isinstance(model, NeuralCF) and config.model.pretrained:
            pretrained.start(model, dataset, config)
    return strategy, model, loss, dataset, rows, config


def make_loss(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> Loss:
    """Of a closed form, which has none: what takes its scores as they are."""
    return Loss() if model.closed_form else losses.make(config, dataset, rows.train)


def make_server(model: Recommender, loss: Loss, baselines: dict[str, Popularity], dataset: Dataset, rows: Rows, config: Config) -> Server:
    """What is exported; baselines: as of `fit_baselines`."""
    task, unscaled = config.model.task, dataset.with_scaling("none", rows.train)
    fallbacks: dict[str, Recommender] = {name: baselines[name] for name in ("bias", "popularity")}
    if stated(dataset.user_features).any():
        for kind in {"ranking", task}:
            fallbacks[f"knowledge_{kind}"] = Knowledge(dataset.user_features, dataset.num_products, kind)
            adapt(fallbacks[f"knowledge_{kind}"], unscaled, rows)
    sampler = Sampler(masses(trained.counts(dataset, rows.train, "product"), losses.negatives(config).power))
    return Server(model, loss, fallbacks, dataset, rows.train, rows.validation, sampler, config)


def load(config: Config) -> tuple[Dataset, Rows, Config]:
    """The data set with its targets scaled, its rows, and the settings with nothing left at auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_blocks(config)
    tables = sources.read(config.data)
    for note in tables.notes if strategies.is_chief(config.train) else ():
        print(note)
    dataset = features.build(tables, config.data)
    config = _resolved(config, dataset, splits.default(dataset))
    rows = splits.split(dataset, config.data)
    return dataset.with_scaling(config.data.target_scaling, rows.train), rows, config


def _resolved(config: Config, dataset: Dataset, split: str) -> Config:
    """The settings with nothing left at auto."""
    if config.model.task == "rating" and not dataset.rated:
        raise UsageError("--task=rating: the data have no ratings. Take --task=ranking, or name their column with --rating_column.")
    auto: dict[str, Any] = {"split": split} if config.data.split == "auto" else {}
    auto |= {name: value for name, value in AUTO[config.model.task].items() if config.flat()[name] in ("auto", None)}
    if not config.workdir:
        name = Path(config.data.dataset.partition(":")[2] or config.data.dataset).name
        auto["workdir"] = workdirs.fresh(f"runs/{name}-{config.model.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    return config.replace(**auto)


def _load_blocks(config: Config) -> tuple[Dataset, Rows, Config]:
    """What scripts/prepare.py wrote: the training rows stay on disk, but for those of the users that will be ranked."""
    folder = config.data.dataset.removeprefix("blocks:")
    dataset, rows, stored = blocks.open(folder)
    fixed, default = stored.manifest["settings"], vars(DataConfig())
    for name, value in vars(config.data).items():
        there = tuple(fixed[name]) if isinstance(fixed[name], list) else fixed[name]
        if name != "dataset" and value not in (default[name], there):
            raise UsageError(f"--{name}={value}: {folder} was prepared with {there}. Leave it out, or prepare another folder.")
    users = trained.some(np.unique(dataset.user), config.evaluation.ranked_users)
    dataset, rows = blocks.with_training_rows(dataset, rows, stored, users)
    return dataset, rows, _resolved(config, dataset, fixed["split"])


def fit(
    strategy: tf.distribute.Strategy, model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config, workdir: Path
) -> dict[str, Any]:
    """Fits the model, and what the loss keeps; returns the figures of "train" in metrics.json, and its "history"."""
    settings, task = config.train, config.model.task
    if model.closed_form:
        began = time.monotonic()
        adapt(model, dataset, rows)
        seconds = time.monotonic() - began
        return {
            "seconds": seconds,
            "examples_per_second": trained.size(dataset, rows.train) / seconds,
            "epochs": 1,
            "best_epoch": 1,
            "history": [],
        }
    is_chief = strategies.is_chief(settings)
    validation, decides = None, ("", False)
    if len(rows.validation):
        decides = objective(config)
        evaluator = _validator(model, loss, dataset, rows, config) if is_chief else None

        def validation() -> dict[str, float]:
            """The chief's figures; all workers go by the one that decides."""
            figures = {decides[0]: 0.0}
            if evaluator:
                figures = evaluator.rating_metrics() if task == "rating" else evaluator.ranking_metrics()
            return figures | {decides[0]: strategies.total(strategy, figures[decides[0]])}

    count = trained.size(dataset, rows.train)
    steps = pipeline.steps_per_epoch(count, settings.batch_size)
    rate = schedule(settings.schedule, settings.learning_rate, steps * settings.epochs, settings.warmup_steps, settings.decay)
    with strategy.scope():
        make = OPTIMIZERS[settings.optimizer]
        optimizer = make(rate, settings.sparse_updates, settings.l2 or 0.0, settings.clip_norm, settings.weight_decay)
        if strategies.has_servers(strategy):
            remote = models.build(dataset, rows.train, config.model)
            remote_loss = make_loss(remote, dataset, rows, config)
            trainer: loop.Trainer = ClusterTrainer(
                strategy, remote, remote_loss, model, loss, optimizer, settings.batch_size, settings.jit_compile, steps
            )
        else:
            trainer = loop.Trainer(strategy, model, loss, optimizer, settings.batch_size, settings.jit_compile)

    row_weight = dataset.worth(rows.train, config.model.rating_power) if config.model.rating_power else None

    def batches(start: tuple[int, int], slices: tuple[int, int, int]) -> tf.data.Dataset:
        how = task, settings.batch_size, losses.negatives(config), settings.seed, start, slices
        if dataset.stored:
            return from_disk.training_batches(dataset, rows.train, *how)
        return pipeline.training_batches(dataset, rows.train, *how, row_weight)

    def describe() -> str:
        return tensorboard.recommendations(model, dataset, rows.train, decode=loss.decode)

    iterate, data = functools.partial(trainer.iterate, batches), dataset.fingerprint()
    progress = loop.fit(trainer, iterate, count, config, workdir, validation, decides, data, describe, is_chief)
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
    model.adapt(trained.columns(dataset, rows.train))


def settle(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> None:
    """Makes of the trained weights those that a run keeps; --cold_rows says what becomes of rows that were not trained."""
    model.settle()
    if config.train.cold_rows == "mean":
        users, products = (trained.counts(dataset, rows.train, side) > 0 for side in ("user", "product"))
        model.average_untrained(users, products)


def fit_baselines(dataset: Dataset, rows: np.ndarray) -> dict[str, Popularity]:
    """What a model has to beat, fitted on the same rows in rating units: global_mean, bias and popularity."""
    chunks = trained.chunks(dataset.with_scaling("none", rows), rows)
    made = {}
    for name, task, sweeps in (("global_mean", "rating", 0), ("bias", "rating", 10), ("popularity", "ranking", 0)):
        made[name] = Popularity(dataset.num_users, dataset.num_products, task, sweeps)
        made[name].adapt(chunks)
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
    train = trained.size(dataset, rows.train)
    count = train + len(rows.validation) + len(rows.test)
    counts = f"{train:,} rows to train, {len(rows.validation):,} to validate, {len(rows.test):,} to test"
    return (
        f"{dataset.name}: {dataset.num_users:,} users, {dataset.num_products:,} products, {count:,} ratings\n"
        f"{config.model.model}, {config.model.task}, split {config.data.split}: {counts}\n"
        f"--workdir={config.workdir}"
    )
