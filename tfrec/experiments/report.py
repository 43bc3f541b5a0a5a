"""A run's result as a table for people."""

import shlex
import statistics
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from textwrap import TextWrapper
from typing import Any

from tfrec.errors import UsageError
from tfrec.evaluation import results
from tfrec.evaluation.ranking import shown_k
from tfrec.experiments import workdirs
from tfrec.experiments.config import Config, flag_line
from tfrec.system.text import aligned, number, shown, spread

USUAL = ("rmse", "mae", "fcp", "hr@{k}", "ndcg@{k}", "recall@{k}")
WIDTH = 120  # columns of a table of runs
REFERENCE = "reference_true_positives@5"  # shown in runs split as the reference system is


def table(result: dict[str, Any]) -> str:
    """Returns the model beside its baselines on the test rows, then its slices, and what training
    took.

    Rankings at 10, or the least k.
    """
    baselines = {f"baseline {name}": metrics for name, metrics in result["baselines"].items()}
    more = (REFERENCE,) if result.get("split") == "by_product" else ()
    text = results.table({result["model"]: result["test"]} | baselines, more)
    slices = {
        f"{who} {name}": metrics
        for who, part in result.get("slices", {}).items()
        for name, metrics in part.items()
    }
    if slices:
        text += f"\n\n{_slices(slices)}\n"
    train = result["train"]
    how = (
        f"kept that of epoch {train['best_epoch']} of {train['epochs']}, "
        f"{train['examples_per_second']:,.0f} rows/s"
    )
    again = result.get("refit")
    if again:
        how = (
            f"trained anew for {number(again['epochs'], 'epoch')} on {again['rows']:,} rows, "
            f"{train['examples_per_second']:,.0f} rows/s"
        )
    trained = f"{result['parameters']:,} parameters, {how}, " if result["parameters"] else ""
    last = result.get("refit_all")
    exported = (
        f"\nexported: a model trained once more, on all {last['rows']:,} rows" if last else ""
    )
    return f"{text}\n{trained}fitted in {_seconds(result):.1f} s{exported}"


def _seconds(result: dict[str, Any]) -> float:
    """Returns what all training took, refits included."""
    trained = ("train", "refit", "refit_all")
    return sum(result[name]["seconds"] for name in trained if name in result)


def _slices(slices: dict[str, dict[str, float]]) -> str:
    names = [name for name in max(slices.values(), key=len) if name != "rows"]
    lines = [["test slice", "rows", *names]]
    for name, metrics in slices.items():
        lines.append([name, *(results.cell(metrics.get(each)) for each in ("rows", *names))])
    return aligned(lines)


def verdict(result: dict[str, Any]) -> str:
    """One sentence: the model against the best of its baselines, by the metric that decides."""
    metric = "rmse" if result["task"] == "rating" else f"ndcg@{shown_k(result['test'])}"
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


@dataclass(frozen=True)
class _Finished:
    folder: Path
    config: Config
    settings: dict[str, Any]
    result: dict[str, Any]


def of_runs(folders: list[Path], metrics: list[str]) -> str:
    """Returns tables of finished runs, at most WIDTH columns wide, and their settings.

    Runs that differ in --seed alone are one row, mean ± spread; their baselines stand below.

    Args:
        folders: Of the runs.
        metrics: Test metrics by name; none: those that verdicts and tables show.

    Raises:
        UsageError: A folder holds no finished run, or none of them has one of the metrics.
    """
    runs = []
    for folder in folders:
        config = workdirs.settings(folder)
        runs.append(_Finished(folder, config, config.flat(), workdirs.metrics(folder)))
    known = sorted({name for run in runs for name in run.result["test"]})
    for metric in metrics:
        if metric not in known:
            raise UsageError(f"--metrics={metric}: no run has it. There are {', '.join(known)}.")
    usual = [name.format(k=shown_k(known)) for name in USUAL]
    names = metrics or [name for name in usual if name in known]
    groups = workdirs.by_setting(runs)
    lines = [["run", "seeds", *names, "fitted in"]]
    for group in groups:
        values = [spread([run.result["test"].get(name) for run in group]) for name in names]
        seconds = statistics.fmean(_seconds(run.result) for run in group)
        lines.append([_name(group[0]), workdirs.seeds(group), *values, f"{seconds:.0f} s"])
    lines += _baselines(runs, names)
    tables = [aligned(part, left=(0, 1)) for part in _narrow(lines)]
    return "\n\n".join([*tables, _settings([group[0] for group in groups])])


def _baselines(runs: list[_Finished], names: list[str]) -> list[list[str]]:
    """Returns the rows of the baselines.

    Those that agree are one; a run that lacks some of the metrics agrees by those that it has.
    Where they do not (on other test rows, say), each names its first run.
    """
    first: dict[tuple[str, ...], _Finished] = {}
    for run in runs:
        for name, metrics in run.result["baselines"].items():
            values = [spread([metrics.get(metric)]) for metric in names]
            if set(values) != {"-"}:
                first.setdefault((f"baseline {name}, {run.result['split']}", *values), run)
    kept = [row for row in first if not any(_within(row, other) for other in first)]
    labels = [row[0] for row in kept]
    texts = [
        label if labels.count(label) == 1 else f"{label}, {first[row].folder}"
        for label, row in zip(labels, kept)
    ]
    return [[_short(text), "-", *row[1:], "-"] for text, row in zip(texts, kept)]


def _within(row: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether the other row has all that this one has, and more."""
    return row != other and all(cell in ("-", there) for cell, there in zip(row, other))


def _name(run: _Finished) -> str:
    return _short(str(run.folder))


def _short(text: str) -> str:
    """Returns the text, shortened in its middle where it is long."""
    return text if len(text) <= 48 else f"{text[:20]}...{text[-25:]}"


def _narrow(lines: list[list[str]]) -> list[list[list[str]]]:
    """Returns the table, with its metrics in several tables where one is wider than WIDTH."""
    widths = [2 + max(map(len, column)) for column in zip(*lines)]
    room = WIDTH - widths[0] - widths[1] - widths[-1]
    tables: list[list[int]] = [[]]
    for at in range(2, len(widths) - 1):
        if tables[-1] and sum(widths[each] for each in [*tables[-1], at]) > room:
            tables.append([])
        tables[-1].append(at)
    return [[[line[at] for at in (0, 1, *own, -1)] for line in lines] for own in tables]


def _settings(runs: list[_Finished]) -> str:
    """Returns what sets the runs apart, and what all of them have, beside the defaults."""
    flags = [changed(run.config, ("seed", "workdir")) for run in runs]
    same = [flag for flag in flags[0] if all(flag in other for other in flags)]
    texts = [
        f"{_name(run)}: {' '.join(flag for flag in own if flag not in same)}"
        for run, own in zip(runs, flags)
    ]
    texts = [*(texts if len(runs) > 1 else []), f"all: {' '.join(same)}"]
    wrap = TextWrapper(WIDTH, subsequent_indent="    ", break_on_hyphens=False)
    return "\n".join(wrap.fill(shown(text)) for text in texts)


def changed(config: Config, but: Collection[str]) -> list[str]:
    """Returns the model and the settings that are not the default, as flags for a shell.

    Args:
        config: A run's settings.
        but: Names of those to leave out.
    """
    default = config.defaults()
    return [
        shlex.quote(flag_line(name, value))
        for name, value in config.flat().items()
        if name == "model" or (name not in but and value != default[name])
    ]
