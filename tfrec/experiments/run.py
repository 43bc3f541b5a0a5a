"""One run from settings to results.

Read, split, train, evaluate, export. The only place that joins the rooms.
"""

import contextlib
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec import losses, models
from tfrec.config import Config
from tfrec.data import from_disk, pipeline, splits, trained
from tfrec.data.dataset import Dataset
from tfrec.data.negatives import Sampler, masses
from tfrec.data.splits import Rows
from tfrec.data.tables import PARTS
from tfrec.errors import Diverged, UsageError
from tfrec.evaluation import fallbacks
from tfrec.evaluation.candidates import read_candidates
from tfrec.evaluation.evaluate import Evaluator, Outcome, nothing_to_rank
from tfrec.evaluation.fallbacks import Fallbacks
from tfrec.evaluation.ranking import headline
from tfrec.experiments import loading, plots, pretrained, tensorboard, users, workdirs
from tfrec.losses import Loss
from tfrec.models import MODELS, ease
from tfrec.models.base import Recommender
from tfrec.models.ncf import NeuralCF
from tfrec.models.popularity import Popularity
from tfrec.optimizers import OPTIMIZERS, schedule
from tfrec.serving.export import Server, export
from tfrec.system import sealed
from tfrec.system.machine import free_memory
from tfrec.system.text import said
from tfrec.training import loop, strategies
from tfrec.training.cluster import ClusterTrainer

MOST_IN_GRAPH = 20_000_000  # rows of some 35 bytes; a graph has 2 GB at most


def train(config: Config) -> dict[str, Any]:
    """Trains, evaluates and exports into config.workdir, and returns what is in metrics.json there.

    The same settings on the same folder resume; a finished run is left as it is.

    Raises: UsageError: settings that do not go together or differ from those of the run in the
        folder, or another process works there. TfrecError: broken data. Diverged: a loss, a figure
        or a weight is not finite. Again: SIGTERM came in training, or another process of the
        cluster is lost.
    """
    strategies.serve(config.train)
    with strategies.watched(config.train):
        strategy, model, loss, dataset, rows, config = _prepare(config)
        lead = _lead if strategies.is_chief(config.train) else _follow
        return lead(strategy, model, loss, dataset, rows, config)


def _lead(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    loss: Loss,
    dataset: Dataset,
    rows: Rows,
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
        print(_headline(dataset, rows, config))
        record = fit(strategy, model, loss, dataset, rows, config, workdir)
        baselines = fit_baselines(dataset, rows.train)
        result, outcome = measure(model, loss, baselines, dataset, rows, config)
        if len(rows.validation):
            result["validation"] = _validator(model, loss, dataset, rows, config).metrics()
        result |= {"history": record.pop("history"), "train": record}
        result["data"] = dataset.fingerprint()
        result["parameters"] = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        text = _json(result)
        export(make_server(model, loss, baselines, dataset, rows, config), workdir / "export")
        tensorboard.project(workdir / "logs", model, dataset, rows.train)
        plots.save(
            workdir, record["epochs"], plots.of_run(model, dataset, rows, outcome, result, config)
        )
        users.save(workdir, users.figures(outcome, dataset, rows, config))
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
    loss: Loss,
    dataset: Dataset,
    rows: Rows,
    config: Config,
) -> dict[str, Any]:
    """The part of a worker that is not the chief.

    It trains in step, and goes when the chief has written the results.
    """
    workdir = Path(config.workdir)
    if not (workdir / "metrics.json").exists():
        fit(strategy, model, loss, dataset, rows, config, workdir)
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
    strategy, model, loss, dataset, rows, config = _prepare(config)
    if not len(rows.validation):
        raise UsageError("--validation_fraction=0 leaves no validation rows. Take 0.1.")
    with workdirs.opened(config) as workdir:
        print(_headline(dataset, rows, config))
        record = fit(strategy, model, loss, dataset, rows, config, workdir)
        evaluator = _validator(model, loss, dataset, rows, config)
        figures = (
            evaluator.rating_metrics()
            if config.model.task == "rating"
            else evaluator.ranking_metrics()
        )
    return {
        "validation": figures,
        "train": {name: value for name, value in record.items() if name != "history"},
    }


def objective(config: Config) -> tuple[str, bool]:
    """The validation figure that decides, and whether more is better."""
    return (
        ("rmse", False)
        if config.model.task == "rating"
        else (f"ndcg@{headline(config.evaluation.k)}", True)
    )


def _prepare(
    config: Config,
) -> tuple[tf.distribute.Strategy, Recommender, Loss, Dataset, Rows, Config]:
    """Everything before the folder: a model that refuses the data leaves none."""
    models.check(config.model)
    if config.train.strategy in strategies.CLUSTER and not config.workdir:
        raise UsageError(
            f"--strategy={config.train.strategy}: name a --workdir that all machines of the "
            "cluster see."
        )
    strategy = strategies.make(config.train)  # before anything touches a device
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(config.train.seed)
    closed_form = MODELS[config.model.model][
        0
    ].closed_form  # counts and inverses, which bfloat16 would spoil
    tf.keras.mixed_precision.set_global_policy("float32" if closed_form else config.train.precision)
    dataset, rows, config = loading.load(config)
    if config.evaluation.candidates_file:
        read_candidates(
            Path(config.evaluation.candidates_file), dataset
        )  # before hours of training, not after them
    if config.model.model == "ease":
        _check_memory(dataset, rows)
    with (
        contextlib.nullcontext() if strategies.has_servers(strategy) else strategy.scope()
    ):  # fit puts another on the servers
        model = models.build(dataset, rows.train, config.model)
        loss = make_loss(model, dataset, rows, config)
        if isinstance(model, NeuralCF) and config.model.pretrained:
            pretrained.start(model, dataset, config)
    _check_ranking(model, dataset, rows, config)
    return strategy, model, loss, dataset, rows, config


def _check_memory(dataset: Dataset, rows: Rows) -> None:
    """Says what ease will take where that is much; raises UsageError where the machine has less."""
    counts = [trained.counts(dataset, rows.train, side) for side in ("user", "product")]
    needed, free = (
        ease.memory(*map(len, counts), *(int(np.count_nonzero(count)) for count in counts)),
        free_memory(),
    )
    gigabytes = f"{needed / 1e9:.1f} GB for the weights between {dataset.num_products:,} products"
    if needed > free:
        raise UsageError(
            f"--model=ease: it would take about {gigabytes}, and {free / 1e9:.1f} GB are free. "
            "Take --model=ials or item_knn, "
            "or leave out rare products."
        )
    if needed > 1e9:
        print(f"ease will take about {gigabytes}")


def _check_ranking(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> None:
    """Says where no ranking metric can be made of the test rows.

    Raises UsageError where the validation rows cannot stop the training.
    """
    threshold = config.evaluation.relevance_threshold
    why = (
        nothing_to_rank(dataset, rows.validation, rows.train, threshold)
        if len(rows.validation)
        else ""
    )
    if why and config.model.task == "ranking" and not model.closed_form:
        raise UsageError(
            f"no validation row is relevant: {why}. Change that, or take --validation_fraction=0 "
            "and a fixed --epochs."
        )
    why = nothing_to_rank(
        dataset, rows.test, np.concatenate([rows.train, rows.validation]), threshold
    )
    if why and not config.evaluation.candidates_file and strategies.is_chief(config.train):
        print(f"note: there will be no ranking metrics, as no test row is relevant: {why}")


def make_loss(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> Loss:
    """Of a closed form, which has none: what takes its scores as they are."""
    return Loss() if model.closed_form else losses.make(config, dataset, rows.train)


def make_fallbacks(
    baselines: dict[str, Popularity], dataset: Dataset, rows: Rows, config: Config
) -> Fallbacks:
    """What answers where the model knows nothing; baselines: as of `fit_baselines`."""
    return fallbacks.make(
        config.model.task, baselines["bias"], baselines["popularity"], dataset, rows.train
    )


def make_server(
    model: Recommender,
    loss: Loss,
    baselines: dict[str, Popularity],
    dataset: Dataset,
    rows: Rows,
    config: Config,
) -> Server:
    """What is exported; baselines: as of `fit_baselines`."""
    sampler = Sampler(
        masses(trained.counts(dataset, rows.train, "product"), losses.negatives(config).power)
    )
    return Server(
        model,
        loss,
        make_fallbacks(baselines, dataset, rows, config),
        dataset,
        rows.train,
        rows.validation,
        sampler,
        config,
    )


def fit(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    loss: Loss,
    dataset: Dataset,
    rows: Rows,
    config: Config,
    workdir: Path,
) -> dict[str, Any]:
    """Fits the model, and what the loss keeps.

    Returns the figures of "train" in metrics.json, and its "history".
    """
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
    decides = objective(config) if len(rows.validation) else ("", False)
    validation = (
        _validation(strategy, model, loss, dataset, rows, config) if len(rows.validation) else None
    )
    count = trained.size(dataset, rows.train)
    steps = pipeline.steps_per_epoch(count, settings.batch_size)
    trainer = _trainer(strategy, model, loss, dataset, rows, config, steps)
    row_weight = (
        dataset.worth(rows.train, config.model.rating_power) if config.model.rating_power else None
    )

    def batches(start: tuple[int, int], slices: tuple[int, int, int]) -> tf.data.Dataset:
        how = task, settings.batch_size, losses.negatives(config), settings.seed, start, slices
        if dataset.stored:
            return from_disk.training_batches(dataset, rows.train, *how)
        return pipeline.training_batches(dataset, rows.train, *how, row_weight)

    def describe() -> str:
        return tensorboard.recommendations(model, task, dataset, rows.train, decode=loss.decode)

    iterate, data = functools.partial(trainer.iterate, batches), dataset.fingerprint()
    progress = loop.fit(
        trainer,
        iterate,
        count,
        config,
        workdir,
        validation,
        decides,
        data,
        describe,
        strategies.is_chief(settings),
    )
    settle(model, dataset, rows, config)
    model.set_policies()
    return {
        "seconds": progress.seconds,
        "examples_per_second": statistics.median(progress.speeds),
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "history": progress.history,
    }


def _validation(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    loss: Loss,
    dataset: Dataset,
    rows: Rows,
    config: Config,
) -> Callable[[], dict[str, float]]:
    """What makes the validation figures.

    The chief's, and all workers go by the one that decides.
    """
    decides, _ = objective(config)
    evaluator = (
        _validator(model, loss, dataset, rows, config)
        if strategies.is_chief(config.train)
        else None
    )

    def figures() -> dict[str, float]:
        found = {decides: 0.0}
        if evaluator:
            with as_kept(model, dataset, rows, config):
                found = (
                    evaluator.rating_metrics()
                    if config.model.task == "rating"
                    else evaluator.ranking_metrics()
                )
        return found | {decides: strategies.total(strategy, found[decides])}

    return figures


def _trainer(
    strategy: tf.distribute.Strategy,
    model: Recommender,
    loss: Loss,
    dataset: Dataset,
    rows: Rows,
    config: Config,
    steps: int,
) -> loop.Trainer:
    """steps.

    Of an epoch. With parameter servers, model and loss are the chief's copies of those that it
    makes there.
    """
    train = config.train
    rate = schedule(
        train.schedule, train.learning_rate, steps * train.epochs, train.warmup_steps, train.decay
    )
    with strategy.scope():
        optimizer = OPTIMIZERS[train.optimizer](
            rate, train.sparse_updates, train.l2 or 0.0, train.clip_norm, train.weight_decay
        )
        if not strategies.has_servers(strategy):
            return loop.Trainer(
                strategy, model, loss, optimizer, train.batch_size, train.jit_compile
            )
        if dataset.stored is None and len(rows.train) > MOST_IN_GRAPH:
            raise UsageError(
                f"--strategy=parameter_server: {len(rows.train):,} rows in memory are too many "
                "for the graph that the workers are sent. "
                "Write them with scripts/prepare.py, and take --dataset=blocks:FOLDER."
            )
        there = models.build(dataset, rows.train, config.model)
        loss_there = make_loss(there, dataset, rows, config)
        return ClusterTrainer(
            strategy,
            there,
            loss_there,
            model,
            loss,
            optimizer,
            train.batch_size,
            train.jit_compile,
            steps,
        )


def adapt(model: Recommender, dataset: Dataset, rows: Rows) -> None:
    """Fits a closed form to the training rows."""
    model.adapt(trained.columns(dataset, rows.train))


def settle(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> None:
    """Makes of the trained weights those that a run keeps.

    --cold_rows says what becomes of rows that were not trained.
    """
    model.settle()
    if config.train.cold_rows == "mean":
        model.average_untrained(
            *(
                trained.typical(dataset, rows.train, rows.validation, side)
                for side in ("user", "product")
            )
        )


@contextlib.contextmanager
def as_kept(model: Recommender, dataset: Dataset, rows: Rows, config: Config) -> Iterator[None]:
    """In its scope the weights are those that the run would keep if it ended now.

    Afterwards training goes on as if nothing had been.
    """
    tables = model.tables("user") | model.tables("product")
    before = {path: tf.identity(table.table.value) for path, table in tables.items()}
    policies = (
        model.set_policies()
    )  # scores are float32 wherever they are judged or served: in bfloat16 many would tie
    settle(model, dataset, rows, config)
    try:
        yield
    finally:
        model.set_policies(policies)
        for path, table in tables.items():
            table.table.assign(before[path])
        model.unsettle()


def fit_baselines(dataset: Dataset, rows: np.ndarray) -> dict[str, Popularity]:
    """What a model has to beat, fitted on the same rows in rating units.

    Global_mean, bias and popularity.
    """
    chunks = trained.chunks(dataset.with_scaling("none", rows), rows)
    made = {}
    for name, task, sweeps in (
        ("global_mean", "rating", 0),
        ("bias", "rating", 10),
        ("popularity", "ranking", 0),
    ):
        made[name] = Popularity(dataset.num_users, dataset.num_products, task, sweeps)
        made[name].adapt(chunks)
    return made


def measure(
    model: Recommender,
    loss: Loss,
    baselines: dict[str, Popularity],
    dataset: Dataset,
    rows: Rows,
    config: Config,
) -> tuple[dict[str, Any], Outcome]:
    """The model and the baselines on the test rows, and what the model made of them: as it is
    served, unless --nofallbacks.

    In a ranking run the baselines are ranked only. global_mean, which ranks nothing, has rating
    metrics only.
    """
    task, seen = config.model.task, np.sort(np.concatenate([rows.train, rows.validation]))
    result: dict[str, Any] = {"model": config.model.model, "task": task, "split": config.data.split}
    answers = (
        make_fallbacks(baselines, dataset, rows, config) if config.evaluation.fallbacks else None
    )
    evaluator = Evaluator(
        model, task, dataset, rows.test, seen, config.evaluation, rows.train, loss.decode, answers
    )
    outcome = evaluator.outcome()
    result["test"], result["slices"] = evaluator.metrics(outcome), evaluator.slices(outcome)
    result["baselines"] = {}
    unscaled = dataset.with_scaling("none", rows.train)
    for name, baseline in baselines.items():
        if baseline.task == "rating" and not dataset.rated:
            continue
        kind = baseline.task if task == "rating" else "ranking"
        evaluator = Evaluator(
            baseline, kind, unscaled, rows.test, seen, config.evaluation, rows.train
        )
        if name != "global_mean":
            result["baselines"][name] = evaluator.metrics()
        elif task == "rating":
            result["baselines"][name] = evaluator.rating_metrics()
    return result, outcome


def _validator(
    model: Recommender, loss: Loss, dataset: Dataset, rows: Rows, config: Config
) -> Evaluator:
    """Of the bare model on the validation rows, which decide on its weights.

    --candidates_file holds test rows, so it has no say here.
    """
    settings = dataclasses.replace(config.evaluation, candidates_file="")
    return Evaluator(
        model, config.model.task, dataset, rows.validation, rows.train, settings, decode=loss.decode
    )


def _json(result: dict[str, Any]) -> str:
    try:
        return sealed.dumps(result, indent=2, allow_nan=False) + "\n"
    except ValueError:
        raise Diverged(
            "a metric is not finite: the model has diverged. Lower --learning_rate, or set "
            "--clip_norm."
        ) from None


def _headline(dataset: Dataset, rows: Rows, config: Config) -> str:
    train, validation, test = (trained.size(dataset, getattr(rows, part), part) for part in PARTS)
    counts = f"{train:,} rows to train, {validation:,} to validate, {test:,} to test"
    most, tested = config.evaluation.ranked_users, len(np.unique(dataset.user[rows.test]))
    if (len(rows.validation), len(rows.test)) != (validation, test):
        of_these = f"{len(rows.validation):,} rows to validate, {len(rows.test):,} to test"
        counts += (
            f"\nmetrics are of {len(np.unique(dataset.user)):,} of the users "
            f"(--ranked_users): {of_these}"
        )
    elif most and tested > most:
        counts += (
            f"\nranking metrics are of {most:,} of the {tested:,} tested users (--ranked_users)"
        )
    counts += "".join(
        f"\n{line}"
        for line in splits.surprises(dataset, rows, config.data, (train, validation, test))
    )
    return (
        f"{said(dataset.name)}: {dataset.num_users:,} users, {dataset.num_products:,} products, "
        f"{train + validation + test:,} ratings\n"
        f"{config.model.model}, {config.model.task}, split {config.data.split}: {counts}\n"
        f"--workdir={said(config.workdir)}"
    )
