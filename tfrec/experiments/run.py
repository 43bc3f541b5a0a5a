"""One run from settings to results.

Read, split, train, evaluate, export. The only place that joins the rooms.
"""

import contextlib
import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data import splits
from tfrec.data.interactions import Interactions, Split
from tfrec.data.memory import in_memory
from tfrec.errors import Diverged, UsageError
from tfrec.evaluation import fallbacks
from tfrec.evaluation.candidates import read_candidates
from tfrec.evaluation.evaluate import Evaluator, Predictions, nothing_to_rank
from tfrec.evaluation.fallbacks import Fallbacks
from tfrec.evaluation.ranking import primary_k
from tfrec.experiments import loading, parts, plots, pretrained, tensorboard, users, workdirs
from tfrec.experiments.config import Config
from tfrec.models import ease
from tfrec.models.base import Recommender
from tfrec.models.ncf import NeuralCF
from tfrec.models.popularity import GlobalMean, Popularity
from tfrec.serving.export import ServingModule, export
from tfrec.system import sealed
from tfrec.system.machine import free_memory
from tfrec.system.text import said, shown
from tfrec.training import strategies
from tfrec.training.hooks import (
    Checkpoints,
    EarlyStopping,
    Hook,
    Profile,
    ProgressBar,
    StopSignal,
    TensorBoard,
)


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports into config.workdir, and returns what is in metrics.json there.

    The same settings on the same folder resume; a finished run is left as it is.

    Raises: UsageError: settings that do not go together or differ from those of the run in the
        folder, or another process works there. TfrecError: broken data. Diverged: a loss, a figure
        or a weight is not finite. Again: SIGTERM came in training, or another process of the
        cluster is lost.
    """
    name = config.strategy_name
    strategies.serve(name)
    with strategies.watched(name):
        strategy, model, split, config = _prepare(config)
        lead = _lead if strategies.is_chief(strategy) else _follow
        return lead(strategy, model, split, config)


def _lead(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    split: Split,
    config: Config,
) -> dict[str, Any]:
    """The chief's part, and that of a process that trains alone."""
    with workdirs.opened(config) as workdir:
        finished = workdir / "metrics.json"
        if finished.exists():
            print(
                f"{said(config.workdir)}: this run is finished; here is its result. Take another "
                "--workdir to train again."
            )
            return workdirs.metrics(workdir)
        print(_headline(split, config))
        record = fit(strategy, model, split, config, workdir)
        baselines = fit_baselines(split.train)
        result, outcome, evaluator = measure(model, baselines, split, config)
        if len(split.validation):
            result["validation"] = _validator(model, split, config).metrics()
        result |= {"history": record.pop("history"), "train": record}
        result["data"] = split.fingerprint
        result["parameters"] = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        text = _json(result)
        export(make_serving_module(model, baselines, split, config), workdir / "export")
        tensorboard.project(workdir / "logs", model, split.train)
        figures = plots.of_run(model, split, outcome, result, evaluator)
        plots.save(workdir, record["epochs"], figures)
        users.save(workdir, users.figures(outcome, evaluator))
        workdirs.write(finished, text)
        strategies.total(strategy, 1.0)  # the others may go
        folder = said(config.workdir)
        print(
            f"pictures, logs and the SavedModel are in {folder}; try: python scripts/recommend.py "
            f"--workdir={folder} --user=ID"
        )
    return result


def _follow(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    split: Split,
    config: Config,
) -> dict[str, Any]:
    """The part of a worker that is not the chief.

    It trains in step, and goes when the chief has written the results.
    """
    workdir = Path(config.workdir)
    if not (workdir / "metrics.json").exists():
        fit(strategy, model, split, config, workdir)
        strategies.total(strategy, 0.0)
    return {}


def validate(config: Config) -> dict[str, Any]:
    """Trains into config.workdir as `train` does, and stops before the test rows: they are not
    scored, and nothing is exported.

    `train` with the same settings on the same folder goes on from there.

    Returns:
        {"validation": {metric: value}, "train": as in metrics.json}

    Raises:
        UsageError, TfrecError: as train; a UsageError also where there are no validation rows.
    """
    strategy, model, split, config = _prepare(config)
    if not len(split.validation):
        raise UsageError("--validation_fraction=0 leaves no validation rows. Take 0.1.")
    with workdirs.opened(config) as workdir:
        print(_headline(split, config))
        record = fit(strategy, model, split, config, workdir)
        evaluator = _validator(model, split, config)
        figures = (
            evaluator.rating_metrics() if config.task == "rating" else evaluator.ranking_metrics()
        )
    return {
        "validation": figures,
        "train": {name: value for name, value in record.items() if name != "history"},
    }


def objective(config: Config) -> tuple[str, bool]:
    """The validation figure that decides, and whether more is better."""
    return (
        ("rmse", False)
        if config.task == "rating"
        else (f"ndcg@{primary_k(config.evaluation.k)}", True)
    )


def _prepare(
    config: Config,
) -> tuple[tf.distribute.Strategy, Recommender, Split, Config]:
    """Everything before the folder: a model that refuses the data leaves none."""
    name = config.strategy_name
    if name in strategies.CLUSTER and not config.workdir:
        raise UsageError(
            f"--strategy={name}: name a --workdir that all machines of the cluster see."
        )
    # before anything touches a device
    strategy = strategies.make(name, config.get("virtual_devices", 0))
    if config.trained:
        with parts.dashes():
            strategies.check(strategy, config.batch_size, config.jit_compile)
    if config.get("deterministic", False):
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.get("seed", 0))
    # a closed form makes counts and inverses, which bfloat16 would spoil
    tf.keras.mixed_precision.set_global_policy(config.get("precision", "float32"))
    split, config = loading.load(config)
    if config.evaluation.candidates_file:
        read_candidates(
            Path(config.evaluation.candidates_file), split.catalog
        )  # before hours of training, not after them
    if config.model == "ease":
        _check_memory(split)
    with (
        contextlib.nullcontext() if strategies.has_servers(strategy) else strategy.scope()
    ):  # fit puts another on the servers
        model = parts.make_trained(split.train, config)
        if isinstance(model, NeuralCF) and config.get("pretrained", ()):
            pretrained.start(model, split, config)
    _check_ranking(model, split, config)
    return strategy, model, split, config


def _check_memory(split: Split) -> None:
    """Says what ease will take where that is much.

    Raises UsageError where the machine has less.
    """
    counts = [split.train.counts(side) for side in ("user", "product")]
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
    threshold = config.evaluation.relevance_threshold
    train, validation, test = in_memory(split.sample(config.evaluation.ranked_users))
    why = nothing_to_rank(validation, [train], threshold) if len(validation) else ""
    if why and config.task == "ranking" and not model.closed_form:
        raise UsageError(
            f"no validation row is relevant: {why}. Change that, or take --validation_fraction=0 "
            "and a fixed --epochs."
        )
    why = nothing_to_rank(test, [train, validation], threshold)
    if why and not config.evaluation.candidates_file and strategies.is_chief(config.strategy_name):
        print(f"note: there will be no ranking metrics, as no test row is relevant: {why}")


def make_fallbacks(baselines: dict[str, Popularity], split: Split, config: Config) -> Fallbacks:
    """What answers where the model knows nothing; baselines: as of `fit_baselines`."""
    bias, popularity = baselines["bias"], baselines["popularity"]
    return fallbacks.make(config.task, bias, popularity, split.train)


def make_serving_module(
    model: Recommender, baselines: dict[str, Popularity], split: Split, config: Config
) -> ServingModule:
    """What is exported; baselines: as of `fit_baselines`."""
    return ServingModule(model, make_fallbacks(baselines, split, config), split, config.data)


def fit(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    split: Split,
    config: Config,
    workdir: Path,
) -> dict[str, Any]:
    """Fits the model, and what its loss keeps.

    Returns the figures of "train" in metrics.json, and its "history".
    """
    if model.closed_form:
        began = time.monotonic()
        model.fit_closed_form(split.train)
        seconds = time.monotonic() - began
        return {
            "seconds": seconds,
            "examples_per_second": len(split.train) / seconds,
            "epochs": 1,
            "best_epoch": 1,
            "history": [],
        }
    trainer = parts.make_trainer(strategy, model, config)
    validation = split.validation if len(split.validation) else None
    progress = trainer.fit(split.train, validation, hooks=_hooks(model, split, config, workdir))
    return {
        "seconds": progress.seconds,
        "examples_per_second": statistics.median(progress.speeds),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }


def _hooks(model: Recommender, split: Split, config: Config, workdir: Path) -> list[Hook]:
    """Of a run. Checkpoints come last: they save what the others have noted."""

    def recommendations() -> str:
        return tensorboard.recommendations(model, split.sample(config.evaluation.ranked_users))

    settings = "".join(f"    {shown(line)}\n" for line in config.flagfile().splitlines())
    return [
        StopSignal(),
        EarlyStopping(patience=config.early_stopping),
        ProgressBar(),
        TensorBoard(
            workdir / "logs",
            config.histograms,
            texts={"recommendations": recommendations},
            first={"config": settings},
        ),
        Profile(workdir / "logs", config.profile_steps),
        Checkpoints(workdir / "checkpoints"),
    ]


def fit_baselines(train: Interactions) -> dict[str, Popularity]:
    """What a model has to beat, fitted on the same rows.

    global_mean, bias and popularity.
    """
    made: dict[str, Popularity] = {
        "global_mean": GlobalMean.from_data(train, "rating"),
        "bias": Popularity.from_data(train, "rating"),
        "popularity": Popularity.from_data(train, "ranking"),
    }
    for baseline in made.values():
        baseline.fit_closed_form(train)
    return made


def measure(
    model: Recommender, baselines: dict[str, Popularity], split: Split, config: Config
) -> tuple[dict[str, Any], Predictions, Evaluator]:
    """The model and the baselines on the test rows, and what the model made of them: as it is
    served, unless --nofallbacks.

    In a ranking run the baselines are ranked only. global_mean, which ranks nothing, has rating
    metrics only.
    """
    task = config.task
    result: dict[str, Any] = {"model": config.model, "task": task, "split": config.data.split}
    answers = make_fallbacks(baselines, split, config) if config.evaluation.fallbacks else None
    evaluator = Evaluator(model, split, config.evaluation, task=task, fallbacks=answers)
    outcome = evaluator.outcome()
    result["test"], result["slices"] = evaluator.metrics(outcome), evaluator.slices(outcome)
    result["baselines"] = {}
    for name, baseline in baselines.items():
        if baseline.task == "rating" and not split.catalog.rated:
            continue
        kind = baseline.task if task == "rating" else "ranking"
        of_baseline = Evaluator(baseline, split, config.evaluation, task=kind)
        if name != "global_mean":
            result["baselines"][name] = of_baseline.metrics()
        elif task == "rating":
            result["baselines"][name] = of_baseline.rating_metrics()
    return result, outcome, evaluator


def _validator(model: Recommender, split: Split, config: Config) -> Evaluator:
    """Of the bare model on the validation rows, which decide on its weights.

    --candidates_file holds test rows, so it has no say here.
    """
    settings = dataclasses.replace(config.evaluation, candidates_file="")
    return Evaluator(model, split, settings, part="validation")


def _json(result: dict[str, Any]) -> str:
    try:
        return sealed.dumps(result, indent=2, allow_nan=False) + "\n"
    except ValueError:
        raise Diverged(
            "a metric is not finite: the model has diverged. Lower --learning_rate, or set "
            "--clip_norm."
        ) from None


def _headline(split: Split, config: Config) -> str:
    train, validation, test = map(len, split.parts())
    counts = f"{train:,} rows to train, {validation:,} to validate, {test:,} to test"
    most, sample = config.evaluation.ranked_users, split.sample(config.evaluation.ranked_users)
    if sample is not split:
        users = np.union1d(sample.validation.users(), sample.test.users())
        counts += (
            f"\nmetrics are of {len(users):,} of the users (--ranked_users): "
            f"{len(sample.validation):,} rows to validate, {len(sample.test):,} to test"
        )
    elif most and len(split.test.users()) > most:
        counts += (
            f"\nranking metrics are of {most:,} of the {len(split.test.users()):,} tested users "
            "(--ranked_users)"
        )
    counts += "".join(f"\n{line}" for line in splits.surprises(split, config.data))
    catalog = split.catalog
    return (
        f"{said(catalog.name)}: {catalog.num_users:,} users, {catalog.num_products:,} products, "
        f"{train + validation + test:,} ratings\n"
        f"{config.model}, {config.task}, split {config.data.split}: {counts}\n"
        f"--workdir={said(config.workdir)}"
    )
