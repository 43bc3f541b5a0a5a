"""A run's result as a table for people."""

import shlex
import statistics
from collections.abc import Collection
from pathlib import Path
from typing import Any

from tfrec.errors import UsageError
from tfrec.evaluation.ranking import primary_k
from tfrec.experiments import workdirs
from tfrec.experiments.config import Config, flag_line
from tfrec.system.text import aligned, shown, spread

COLUMNS = (
    "rmse",
    "mae",
    "r2",
    "fcp",
    "hr@{k}",
    "ndcg@{k}",
    "recall@{k}",
    "mrr@{k}",
    "auc",
)
REFERENCE = "reference_true_positives@5"  # shown in runs split as the reference system is


def table(result: dict[str, Any]) -> str:
    """The model beside its baselines on the test rows, then its slices, and what training took.

    Rankings at 10, or the least k.
    """
    rows = {result["model"]: result["test"]} | {
        f"baseline {name}": metrics for name, metrics in result["baselines"].items()
    }
    cutoffs = tuple(int(name[3:]) for name in result["test"] if name.startswith("hr@"))
    k = primary_k(cutoffs) if cutoffs else 0
    wanted = COLUMNS + ((REFERENCE,) if result.get("split") == "by_product" else ())
    names = [
        name.format(k=k)
        for name in wanted
        if any(name.format(k=k) in metrics for metrics in rows.values())
    ]
    text = _table("test", names, rows)
    slices = {
        f"{who} {name}": metrics
        for who, part in result.get("slices", {}).items()
        for name, metrics in part.items()
    }
    if slices:
        names = [name for name in max(slices.values(), key=len) if name != "rows"]
        text += "\n\n" + _table("test slice", ["rows", *names], slices) + "\n"
    train = result["train"]
    how = (
        f"kept that of epoch {train['best_epoch']} of {train['epochs']}, "
        f"{train['examples_per_second']:,.0f} rows/s"
    )
    trained = f"{result['parameters']:,} parameters, {how}, " if result["parameters"] else ""
    return f"{text}\n{trained}fitted in {train['seconds']:.1f} s"


def verdict(result: dict[str, Any]) -> str:
    """One sentence: the model against the best of its baselines, by the metric that decides."""
    names = [name for name in result["test"] if name.startswith("ndcg@")]
    cutoffs = tuple(int(name.removeprefix("ndcg@")) for name in names)
    metric = "rmse" if result["task"] == "rating" else f"ndcg@{primary_k(cutoffs or (10,))}"
    baselines = {
        name: metrics[metric] for name, metrics in result["baselines"].items() if metric in metrics
    }
    if metric not in result["test"] or not baselines:
        return "there is no baseline to compare with"
    sign = -1 if metric == "rmse" else 1
    best = max(baselines, key=lambda name: sign * baselines[name])
    value, other = result["test"][metric], baselines[best]
    if value == other:
        return f"{result['model']} does as well as the best baseline, {best}: {metric} {value:.4f}"
    verb = "beats" if sign * value > sign * other else "does not beat"
    share = f", {100 * abs(value / other - 1):.1f} % " if other else ", "
    than = "less" if value < other else "more"
    return (
        f"{result['model']} {verb} the best baseline, {best}: {metric} {value:.4f} against "
        f"{other:.4f}{share}{than}"
    )


def markdown(lines: list[list[str]]) -> str:
    """Lines of cells, the first of them the heads and the second dashes, as a Markdown table."""
    return "\n".join(f"| {' | '.join(map(shown, cells))} |" for cells in lines)


def of_runs(folders: list[Path], metrics: list[str]) -> str:
    """A Markdown table of finished runs: mean ± spread over those that differ in --seed alone, then
    their baselines.

    Raises:
        UsageError: a folder holds no finished run, or none of them has one of the metrics.
    """
    runs: dict[str, dict[int, dict[str, Any]]] = {}  # command -> seed -> result
    for folder in folders:
        config = workdirs.settings(folder)
        runs.setdefault(_command(config), {})[config.get("seed", 0)] = workdirs.metrics(folder)
    groups = {command: list(results.values()) for command, results in runs.items()}
    for metric in metrics:
        if not any(metric in result["test"] for results in groups.values() for result in results):
            known = sorted(
                {
                    name
                    for results in groups.values()
                    for result in results
                    for name in result["test"]
                }
            )
            raise UsageError(f"--metrics={metric}: no run has it. There are {', '.join(known)}.")
    seeds = max(map(len, groups.values()))
    lines = [
        [
            "command" + (f", mean ± spread of {seeds} seeds" if seeds > 1 else ""),
            *metrics,
            "fitted in",
        ],
        ["---"] * (len(metrics) + 2),
    ]
    baselines: dict[tuple[str, ...], str] = {}
    for command, results in groups.items():
        seconds = statistics.fmean(result["train"]["seconds"] for result in results)
        lines.append(
            [
                f"`{command}`",
                *(spread([result["test"].get(name) for result in results]) for name in metrics),
                f"{seconds:.0f} s",
            ]
        )
        for name, of_baseline in results[0]["baselines"].items():
            split = f"{results[0]['task']}, {results[0]['split']}"
            baselines.setdefault(
                (
                    f"the {name} baseline, {split} split",
                    *(spread([of_baseline.get(metric)]) for metric in metrics),
                ),
                "-",
            )
    lines += [
        [*baseline, seconds]
        for baseline, seconds in baselines.items()
        if set(baseline[1:]) != {"-"}
    ]
    return markdown(lines)


def _command(config: Config) -> str:
    """What makes a run again, but for its seed."""
    return f"python scripts/train.py {changed(config, ('seed', 'workdir'))}"


def changed(config: Config, but: Collection[str]) -> str:
    """The model and the settings that are not the default, as flags in a Markdown table.

    `but` names those to leave out.
    """
    default = config.defaults()
    wanted = [
        (name, value)
        for name, value in config.flat().items()
        if name == "model" or (name not in but and value != default[name])
    ]
    return " ".join(
        shlex.quote(flag_line(name, value)).replace("|", "\\|") for name, value in wanted
    )


def _table(corner: str, names: list[str], rows: dict[str, dict[str, float]]) -> str:
    """A line of heads, then one line a row; what a row lacks is a dash."""
    lines = [[corner, *(name.replace("reference_true_positives", "ref. hits") for name in names)]]
    lines += [[row, *(_cell(metrics.get(name)) for name in names)] for row, metrics in rows.items()]
    return aligned(lines)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
