"""The suites: what is measured, in which order, and the rows that come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks import accuracy, peers, serving, training
from benchmarks.process import Measure
from tfrec.errors import UsageError

Row = dict[str, Any]
MODELS = ("mf", "ncf", "hybrid")
SMALL_BATCH, SMALL_BATCH_ROWS = (
    128,
    200_000,
)  # at small batches an epoch of these rows is long enough
KERAS_LARGEST = 1_000_000  # rows a table; its Adam goes through all of them in each step
STEP = {"batch_size": 1024, "dim": 16}
NEGATIVES = {
    "task": "ranking",
    "loss": "sigmoid",
    "negatives": 8,
    "embedding_dim": 64,
    "similarity": "dot",
    "exclude_positives": False,
}
BLOCKS_TURNS = 3
STRATEGY_TURNS = 8  # the shorter the turns, the less a change of the machine's speed matters
POOL = {"shared_negatives": 32}  # each positive meets all of them, and they weigh as much as 8
NEGATIVES_BATCH = 2048  # of 9 rows each, so 18,432
TO_RMSE = {
    "batch_size": 8192,
    "learning_rate": 0.015,
    "l2": 0.03,
    "schedule": "cosine",
    "epochs": 4,
}  # best on a world of another seed


@dataclass(frozen=True)
class Settings:
    """Settings of the suites.

    Args:
        rows: Of the world.
        vocabulary: Rows of a table.
        rounds: How often each side is measured, in turn; the best counts.
        values: Of a column that makes features.
    """

    rows: int = 1_000_000
    models: tuple[str, ...] = MODELS
    batch_sizes: tuple[int, ...] = (128, 1024, 8192)
    vocabulary: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    peers: tuple[str, ...] = ()
    rounds: int = 1
    values: tuple[int, ...] = (60, 9_000, 100_000)


def train(settings: Settings, measure: Measure) -> list[Row]:
    """Rows/s of tfrec, Keras and the peers, side by side."""
    rows, known = [], {}
    for model in settings.models:
        for batch_size in settings.batch_sizes:
            count = (
                min(settings.rows, SMALL_BATCH_ROWS) if batch_size <= SMALL_BATCH else settings.rows
            )
            sides: dict[str, tuple] = {
                "tfrec": (training.tfrec_fit, model, batch_size, count),
                "keras_fit": (training.keras_fit, model, batch_size, count),
            }
            for name in settings.peers:
                if model not in peers.PEERS[name].models:
                    continue
                fit = peers.PEERS[name].fit
                if fit is None:
                    sides[name] = (
                        peers.torch_fit,
                        model,
                        batch_size,
                        count,
                        training.LEARNING_RATE,
                        training.EPOCHS,
                    )
                elif name not in known:  # it has no batches: once is enough
                    known[name] = measure(f"train, {name}", fit, settings.rows)
            speed = _fastest(
                f"train, {model}, batch {batch_size:,}", sides, settings.rounds, measure
            )
            row = {
                "suite": "train",
                "model": model,
                "batch_size": batch_size,
                "tfrec": speed["tfrec"],
                "keras_fit": speed["keras_fit"],
            }
            row["ratio"] = speed["tfrec"] / speed["keras_fit"]
            if settings.peers:
                every = known | speed
                row["peers"] = {
                    name: every[name]
                    for name in settings.peers
                    if model in peers.PEERS[name].models
                }
            rows.append(row)
    return rows


def pipeline(settings: Settings, measure: Measure) -> list[Row]:
    """Rows/s of the input alone."""
    speeds = measure("pipeline", training.input_speeds, settings.batch_sizes, settings.rows)
    names = {"rating": "rating", "ranking": "8 negatives a row"}
    return [
        _row("pipeline", "any", f"{names[task]}, batch {size:,}", speed, "rows/s")
        for (task, size), speed in speeds.items()
    ]


def vocabulary(settings: Settings, measure: Measure) -> list[Row]:
    """How a step grows with the tables."""
    rows = []
    for size in settings.vocabulary:
        steps = max(settings.rows // STEP["batch_size"], 1)
        ours = measure(
            f"vocabulary, {size:,} rows, tfrec",
            training.tfrec_step,
            size,
            STEP["batch_size"],
            steps,
            STEP["dim"],
        )
        keras = None
        if size <= KERAS_LARGEST:
            few = max(steps // 10, 1) if size > 100_000 else steps
            keras = measure(
                f"vocabulary, {size:,} rows, Keras",
                training.keras_step,
                size,
                STEP["batch_size"],
                few,
                STEP["dim"],
            )
        rows.append({"suite": "vocabulary", "rows": size, "tfrec_ms": ours, "keras_ms": keras})
    return rows


def evaluate(settings: Settings, measure: Measure) -> list[Row]:
    """Users/s of full ranking."""
    what = f"full ranking, k = {serving.K}"
    rows = [
        _row(
            "evaluate",
            model,
            what,
            measure(f"evaluate, {model}", serving.evaluation, model, settings.rows),
            "users/s",
        )
        for model in settings.models
    ]
    if "implicit" in settings.peers:
        train, users = serving.tested_users(settings.rows)
        speed = measure(
            "evaluate, implicit",
            peers.implicit_recommend,
            settings.rows,
            train,
            users,
            serving.K,
            serving.REPEATS,
        )
        rows.append(
            _row(
                "evaluate",
                "implicit",
                f"recommend, the same masks, k = {serving.K}",
                speed,
                "users/s",
            )
        )
        rows += [
            _row("evaluate", row["model"], "against implicit", row["value"] / speed, "x")
            for row in rows[:-1]
        ]
    return rows


def serve(settings: Settings, measure: Measure) -> list[Row]:
    """Latency of the exported `recommend`."""
    rows = []
    calls = {1: max(settings.rows // 1000, 5), 64: max(settings.rows // 5000, 5)}
    for model in (model for model in settings.models if model in serving.SCORES):
        for batch, took in measure(
            f"serve, {model}", serving.serving, model, settings.rows, calls
        ).items():
            who = f"recommend to {batch}"
            rows += [
                _row("serve", model, f"{who}, {name}", value, "ms") for name, value in took.items()
            ]
            rows.append(
                _row(
                    "serve",
                    model,
                    f"{who}, p50 against numpy",
                    took["p50"] / took["numpy p50"],
                    "x",
                )
            )
    return rows


def libmf(settings: Settings, measure: Measure) -> list[Row]:
    """mf beside LIBMF: rows/s, with negatives too, and time to LIBMF's test RMSE."""
    peers.check(("libmf",))
    test, rows = settings.rows // 10, []
    plain = measure("libmf, mf", training.tfrec_fit, "mf", 8192, settings.rows)
    ranking = 9 * measure(
        "libmf, negatives", training.tfrec_fit, "mf", NEGATIVES_BATCH, settings.rows, NEGATIVES
    )
    shared = 9 * measure(
        "libmf, shared negatives",
        training.tfrec_fit,
        "mf",
        NEGATIVES_BATCH,
        settings.rows,
        NEGATIVES | POOL,
    )
    rows.append(_row("libmf", "mf", "batch 8,192, d 50", plain, "rows/s"))
    rows.append(_row("libmf", "mf", "8 negatives, batch 18,432, d 64", ranking, "rows/s"))
    rows.append(
        _row("libmf", "mf", f"the same, a pool of {POOL['shared_negatives']}", shared, "rows/s")
    )
    for name, chosen in (("its defaults", peers.LIBMF_DEFAULTS), ("L2 only", peers.LIBMF)):
        theirs = measure(f"libmf, {name}", peers.libmf_result, settings.rows, test, chosen)
        mine = measure(
            f"libmf, to its RMSE, {name}",
            training.time_to_rmse,
            settings.rows,
            test,
            theirs["rmse"],
            TO_RMSE,
        )
        rows.append(_row("libmf", "libmf", f"{name}, d 50", theirs["rows/s"], "rows/s"))
        rows.append(_row("libmf", "mf", f"against {name}", plain / theirs["rows/s"], "x"))
        rows.append(
            _row("libmf", "mf", f"8 negatives, against {name}", ranking / theirs["rows/s"], "x")
        )
        rows.append(_row("libmf", "mf", f"a pool, against {name}", shared / theirs["rows/s"], "x"))
        rows.append(
            _row("libmf", "libmf", f"{name}, test RMSE after 20 epochs", theirs["rmse"], "stars")
        )
        rows.append(_row("libmf", "libmf", f"{name}, time to it", theirs["seconds"], "s"))
        rows.append(_row("libmf", "mf", f"time to it, {name}", mine["seconds"], "s"))
        rows.append(_row("libmf", "mf", f"of which tracing, {name}", mine["tracing"], "s"))
        rows.append(_row("libmf", "mf", f"epochs to it, {name}", mine["epochs"], "epochs"))
        rows.append(
            _row(
                "libmf",
                "mf",
                f"best test RMSE in {TO_RMSE['epochs']} epochs, {name}",
                mine["rmse"],
                "stars",
            )
        )
    return rows


def strategy(settings: Settings, measure: Measure) -> list[Row]:
    """What --strategy=mirrored costs on one device."""
    rows = []
    for model in settings.models:
        speed = measure(
            f"strategy, {model}",
            training.by_strategy,
            ("default", "mirrored"),
            model,
            1024,
            settings.rows,
            STRATEGY_TURNS,
        )
        rows += [
            _row("strategy", model, f"{kind}, batch 1,024", value, "rows/s")
            for kind, value in speed.items()
        ]
        rows.append(
            _row(
                "strategy",
                model,
                "mirrored against default",
                speed["mirrored"] / speed["default"],
                "x",
            )
        )
    return rows


def scale(settings: Settings, measure: Measure) -> list[Row]:
    """Training from a prepared folder beside memory, and tables of all sizes on two (virtual)
    devices.
    """
    rows = []
    for size in settings.batch_sizes:
        speed = measure(
            f"blocks, batch {size:,}",
            training.from_blocks,
            settings.rows,
            size,
            STEP["dim"],
            BLOCKS_TURNS,
        )
        rows += [
            _row("scale", "mf", f"{name}, batch {size:,}, d {STEP['dim']}", value, "rows/s")
            for name, value in speed.items()
        ]
        rows.append(
            _row(
                "scale",
                "mf",
                f"input against training, batch {size:,}",
                speed["input"] / speed["disk"],
                "x",
            )
        )
        rows.append(
            _row(
                "scale",
                "mf",
                f"disk against memory, batch {size:,}",
                speed["disk"] / speed["memory"],
                "x",
            )
        )
    steps, two = (
        max(settings.rows // STEP["batch_size"], 1),
        {"strategy": "mirrored", "virtual_devices": 2},
    )
    for table in settings.vocabulary:
        took = measure(
            f"mirrored, {table:,} rows",
            training.tfrec_step,
            table,
            STEP["batch_size"],
            steps,
            STEP["dim"],
            two,
        )
        rows.append(
            _row("scale", "mf", f"step, 2 virtual devices, tables of {table:,} rows", took, "ms")
        )
    return rows


def features(settings: Settings, measure: Measure) -> list[Row]:
    """What features of products cost: the hybrid, 20,000 products with one, or up to nine, of many
    values.
    """
    size, rows = STEP["batch_size"], settings.rows
    plain = measure("features, none", training.with_features, 0, 0, size, rows)
    found = [_row("features", "hybrid", "no features, batch 1,024", plain, "rows/s")]
    for values in settings.values:
        for most, what in ((1, "one"), (9, "1 to 9")):
            label = f"{what} of {values:,} values"
            speed = measure(f"features, {label}", training.with_features, values, most, size, rows)
            found.append(_row("features", "hybrid", f"{label}, against none", speed / plain, "x"))
    return found


def of_peers(settings: Settings, measure: Measure) -> list[Row]:
    """How accurate the peers are, on latest-small; settings.rows does not matter."""
    rows = []
    for peer in ("", *settings.peers):
        for name in accuracy.RANKINGS.get(peer, {}):
            chosen, found = measure(f"accuracy, {name}", accuracy.ranking, peer, name)
            with_them = ", ".join(f"{setting}={value:g}" for setting, value in chosen.items())
            what = f"latest fifth ranked, {with_them}"
            rows += [_row("accuracy", name, what, value, unit) for unit, value in found.items()]
    for name in accuracy.RATINGS if "surprise" in settings.peers else ():
        found = measure(f"accuracy, {name}", accuracy.rating, name)
        model, what = f"Surprise {name}", "random fifth rated"
        rows += [_row("accuracy", model, what, value, unit) for unit, value in found.items()]
    return rows


SUITES: dict[str, Callable[[Settings, Measure], list[Row]]] = {
    "train": train,
    "pipeline": pipeline,
    "vocabulary": vocabulary,
    "evaluate": evaluate,
    "serve": serve,
    "libmf": libmf,
    "strategy": strategy,
    "scale": scale,
    "features": features,
    "accuracy": of_peers,
}


def check(settings: Settings) -> None:
    """Raises UsageError where something cannot be measured."""
    peers.check(settings.peers)
    for model in settings.models:
        if model not in MODELS:
            raise UsageError(f"--models={model}: expected some of {', '.join(MODELS)}.")
    numbers = {
        "rows": (settings.rows,),
        "batch_sizes": settings.batch_sizes,
        "vocabulary": settings.vocabulary,
    }
    for name, values in numbers.items():
        if not values or min(values) < 1:
            raise UsageError(f"--{name}: expected numbers of at least 1.")


def _fastest(
    label: str, sides: dict[str, tuple], rounds: int, measure: Measure
) -> dict[str, float]:
    """The best rows/s of each side over the rounds; in each round one after the other."""
    speeds = [
        {name: measure(f"{label}, {name}", *side) for name, side in sides.items()}
        for _ in range(rounds)
    ]
    return {name: max(speed[name] for speed in speeds) for name in sides}


def _row(suite: str, model: str, what: str, value: float | None, unit: str) -> Row:
    return {"suite": suite, "model": model, "what": what, "value": value, "unit": unit}
