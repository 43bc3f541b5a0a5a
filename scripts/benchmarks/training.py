"""How fast tfrec trains, in its real loop, and how fast Keras does on the same rows."""

import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.keras_models import functional, inputs
from benchmarks.world import described, structured, uniform
from tfrec.data import prepare
from tfrec.data.batches import steps_per_epoch
from tfrec.data.disk import open_folder
from tfrec.data.interactions import Interactions, Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.sources.synthetic import SyntheticData
from tfrec.experiments import parts
from tfrec.experiments.config import Config, make_config
from tfrec.experiments.run import Run
from tfrec.training import strategies

EPOCHS = 3  # timed ones; the best counts
LEARNING_RATE = 0.002
NOBODY = np.zeros(0, np.int64)


def tfrec_fit(
    model: str, batch_size: int, rows: int, settings: dict[str, Any] | None = None
) -> float:
    """Rows/s of the best epoch of a run but for its first, which traces; an epoch has all that a
    run does: logs and checkpoints too.

    Negatives are not counted. Without L2, which Keras' fit does not have either.
    """
    plain: dict[str, Any] = {
        "loss": "mae",
        "l2": 0.0,
        "learning_rate": LEARNING_RATE,
        "epochs": 1 + EPOCHS,
    }
    config = make_config(**(plain | {"model": model, "batch_size": batch_size} | (settings or {})))
    return _fastest_epoch(config, structured(rows), batch_size)


def with_features(values: int, most: int, batch_size: int, rows: int) -> float:
    """As tfrec_fit, of the hybrid in a ranking, by what `described` draws."""
    plain = {"similarity": "dot", "id_dropout": 0.0, "exclude_positives": False}
    config = make_config(
        model="hybrid",
        task="ranking",
        loss="sigmoid",
        epochs=1 + EPOCHS,
        batch_size=batch_size,
        **plain,
    )
    return _fastest_epoch(config, described(rows, values, most), batch_size)


def _fastest_epoch(config: Config, every: MemoryInteractions, batch_size: int) -> float:
    rows, steps = len(every), steps_per_epoch(len(every), batch_size)
    events = fit(config, Split(every, every.take(NOBODY), every.take(NOBODY)))
    ends = [
        event.wall_time for event in events["objective/training_loss"] if event.step % steps == 0
    ]
    return rows / np.diff(ends).min()


def fit(config: Config, split: Split) -> dict[str, list[Any]]:
    """A run's training as scripts/train.py does it.

    Returns what TensorBoard has of it: {tag: events with wall_time [s] and step}.
    """
    strategy = strategies.make(config.strategy_name, config.get("virtual_devices", 0))
    tf.keras.utils.set_random_seed(config.seed)
    with strategy.scope():
        model = parts.make_trained(split.train, config)
    with tempfile.TemporaryDirectory() as folder:
        Run(config, split, model, strategy).fit(Path(folder))
        log = EventAccumulator(
            f"{folder}/logs", size_guidance={"tensors": 0}
        ).Reload()  # 0: all of them
        return {tag: log.Tensors(tag) for tag in log.Tags()["tensors"]}


def keras_fit(model: str, batch_size: int, rows: int) -> float:
    """Rows/s of the best epoch of `compile` and `fit` but for the first."""
    dataset = structured(rows)
    network = functional(model, dataset)
    return rows / keras_epoch(network, inputs(model, dataset), dataset, batch_size)


def keras_epoch(
    network: keras.Model, arrays: list[np.ndarray], dataset: MemoryInteractions, batch_size: int
) -> float:
    """Seconds of the best epoch but for the first."""
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: ends.append(time.monotonic())
    )
    network.compile(keras.optimizers.Adam(LEARNING_RATE), "mae")
    network.fit(arrays, dataset.rating, batch_size, 1 + EPOCHS, verbose=0, callbacks=[clock])
    return np.diff(ends).min()


def tfrec_step(
    size: int, batch_size: int, steps: int, dim: int, settings: dict[str, Any] | None = None
) -> float:
    """Milliseconds of a step of the Trainer on tables of `size` rows.

    Without checkpoints, which take as long as the tables are large.
    """
    plain = {"model": "mf", "embedding_dim": dim, "batch_size": batch_size}
    train = _steps(uniform(steps * batch_size, size), plain | (settings or {}))
    return 1000 * min([train(steps) for _ in range(1 + EPOCHS)][1:]) / steps


def by_strategy(
    kinds: tuple[str, ...], model: str, batch_size: int, rows: int, times: int
) -> dict[str, float]:
    """Rows/s of the Trainer's steps under each strategy.

    Its best of so many epochs, which take turns in one process.
    """
    steps, dataset = steps_per_epoch(rows, batch_size), structured(rows)
    trains = {
        kind: _steps(dataset, {"model": model, "batch_size": batch_size, "strategy": kind})
        for kind in kinds
    }
    seconds = [{kind: train(steps) for kind, train in trains.items()} for _ in range(1 + times)]
    return {kind: rows / min(turn[kind] for turn in seconds[1:]) for kind in kinds}


def from_blocks(rows: int, batch_size: int, dim: int, times: int) -> dict[str, float]:
    """Rows/s of a prepared synthetic world: {"input": from disk, nothing else, "disk": mf from
    there, "memory": mf on the same rows in memory}, the best of so many turns.
    """
    with tempfile.TemporaryDirectory() as folder:
        world, split = (
            SyntheticData(max(rows // 100, 1000), max(rows // 1000, 500), rows, 0),
            make_config(split="random", validation_fraction=0.0).data,
        )
        prepare.prepare(split, Path(folder) / "blocks", world)
        on_disk = open_folder(Path(folder) / "blocks").train
        in_memory = on_disk.of_users(np.arange(on_disk.num_users))
        count = len(in_memory) // batch_size
        settings = {"model": "mf", "embedding_dim": dim, "batch_size": batch_size}
        iterator = on_disk.batches(batch_size).__iter__()

        def drain(steps: int) -> float:
            began = time.monotonic()
            _drain(iterator, tf.constant(steps)).numpy()
            return time.monotonic() - began

        sides = {
            "input": drain,
            "disk": _steps(on_disk, settings),
            "memory": _steps(in_memory, settings),
        }
        seconds = [{name: side(count) for name, side in sides.items()} for _ in range(1 + times)]
    return {name: count * batch_size / min(turn[name] for turn in seconds[1:]) for name in sides}


@tf.function(reduce_retracing=True)
def _drain(iterator, steps):  # type: ignore[no-untyped-def]
    for _ in tf.range(steps):
        next(iterator)
    return steps


def _steps(rows: Interactions, settings: dict[str, Any]) -> Callable[[int], float]:
    """count -> seconds of so many steps of the Trainer on all rows, without what a run does between
    epochs; the first call traces.
    """
    config = make_config(**({"loss": "mae", "l2": 0.0, "learning_rate": LEARNING_RATE} | settings))
    strategy = strategies.make(config.strategy_name, config.get("virtual_devices", 0))
    with strategy.scope():
        model = parts.make_trained(rows, config)
    trainer = parts.make_trainer(strategy, model, config)
    iterator = trainer.iterate(rows)

    def seconds(count: int) -> float:
        began = time.monotonic()
        float(trainer.run(iterator, count))
        return time.monotonic() - began

    return seconds


def keras_step(size: int, batch_size: int, steps: int, dim: int) -> float:
    """Milliseconds of a step of `fit` on tables of `size` rows."""
    dataset = uniform(steps * batch_size, size)
    return (
        1000
        * keras_epoch(functional("mf", dataset, dim), inputs("mf", dataset), dataset, batch_size)
        / steps
    )


def input_speeds(
    batch_sizes: tuple[int, ...], rows: int, negatives: int = 8
) -> dict[tuple[str, int], float]:
    """Returns {(task, batch size): rows/s} of the pipeline alone, read in a graph as the Trainer
    reads it; negatives are not counted.
    """
    every, speeds = structured(rows), {}
    for task, size in itertools.product(("rating", "ranking"), batch_sizes):
        batches = every.batches(size, negatives=negatives if task == "ranking" else None)
        iterator, seconds = iter(batches), []
        for _ in range(1 + EPOCHS):
            began = time.monotonic()
            _drain(iterator, tf.constant(steps_per_epoch(rows, size))).numpy()
            seconds.append(time.monotonic() - began)
        speeds[task, size] = rows / min(seconds[1:])
    return speeds


def time_to_rmse(
    rows: int, test: int, target: float, settings: dict[str, Any]
) -> dict[str, float | None]:
    """Trains mf on all but the last `test` rows, whose RMSE is taken after each epoch.

    Returns: seconds: from the start of training until the RMSE is at most `target`, tracing and the
        tests after each epoch included (None: never); tracing: how much longer the first epoch took
        than the shortest; epochs: to the target; rmse: the best.
    """
    index, every = np.arange(rows), structured(rows)
    config = make_config(**({"model": "mf", "loss": "mse", "early_stopping": 0} | settings))
    parts = index[: rows - test], index[rows - test :], NOBODY
    began = time.time()
    events = fit(config, Split(*(every.take(part) for part in parts)))["objective/validation_rmse"]
    values = [float(tf.make_ndarray(event.tensor_proto)) for event in events]
    ends = [event.wall_time - began for event in events]
    at = next((epoch for epoch, value in enumerate(values) if value <= target), None)
    return {
        "seconds": None if at is None else ends[at],
        "tracing": ends[0] - float(np.diff(ends).min()),
        "epochs": None if at is None else at + 1.0,
        "rmse": min(values),
    }
