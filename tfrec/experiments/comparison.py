"""Finished runs side by side, over the test rows that all of them have.

Shows in which settings they differ, their metrics, and whether these differ by more than the choice
of users explains.
"""

import statistics
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.errors import UsageError, nearest
from tfrec.evaluation import ranking, significance
from tfrec.experiments import per_user, workdirs
from tfrec.system.text import aligned, cut, spread

SHOWN = ("rmse", "mae", "hr@{k}", "ndcg@{k}", "recall@{k}", "mrr@{k}", "auc")
ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}
ROWS = ("row_key", "row_user", "row_error")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its workdir.
        settings: {name: value}.
        arrays: Those of users.npz; once aligned, of the common users: tested, squared_error and
            absolute_error (sums over a user's common rows), and ranking metrics.
    """

    folder: Path
    settings: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def metrics(self) -> list[str]:
        """Returns the metrics that can be compared user by user."""
        rated = list(ERRORS) if "tested" in self.arrays else []
        auc = ["auc"] if not np.isnan(self.arrays.get("auc", np.nan)).all() else []
        return [*rated, *(name for name in self.arrays if "@" in name), *auc]

    def value(self, metric: str) -> float:
        """Returns the metric over the common users."""
        if metric not in ERRORS:
            return float(np.nanmean(self.arrays[metric]))
        mean = self.arrays[ERRORS[metric]].sum() / self.arrays["tested"].sum()
        return float(np.sqrt(mean) if metric == "rmse" else mean)


def compare(folders: list[Path], metrics: list[str], resamples: int, seed: int) -> str:
    """Returns what differs between runs, their metrics over the common test rows, and the
    differences to the first row. Runs that differ in their seed alone make a row.

    Args:
        folders: Of finished runs.
        metrics: Names; none: those of SHOWN that the runs have.
        resamples: Draws of the bootstrap.
        seed: Of the draws.

    Raises:
        UsageError: A folder without a finished run, runs without common test rows, or a metric that
            no run has.
        TfrecError: A run without users.npz.
    """
    read = [_read(folder) for folder in folders]
    runs = _aligned(read)
    names, rows = _metrics(runs, metrics), workdirs.by_setting(runs)
    lines = [["test", "seeds", *names]]
    for row in rows:
        values = [[run.value(name) for run in row if name in run.metrics] for name in names]
        lines.append([str(row[0].folder), workdirs.seeds(row), *map(spread, values)])
    texts = [_common(read, runs), aligned(lines, left=(0, 1))]
    if len(rows) > 1:
        texts.insert(1, _settings(rows))
        texts.append(
            f"{_differences(rows, names, resamples, seed)}\npaired bootstrap over users, "
            f"{resamples:,} draws, 95 % intervals"
        )
    return "\n\n".join(texts)


def _read(folder: Path) -> Run:
    return Run(folder, workdirs.settings(folder).flat(), per_user.read(folder))


def _aligned(runs: list[Run]) -> list[Run]:
    """Returns the runs with arrays of the common rows and users, all in the same order.

    A run that is not judged by rating metrics, or not by ranking metrics, has no say in those.
    """
    arrays: list[dict[str, np.ndarray]] = [{} for _ in runs]
    for at, some in _select(runs, "row_key"):
        of = runs[at].arrays
        _, user = np.unique(of["row_user"][some], return_inverse=True)
        error = of["row_error"][some].astype(np.float64)
        sums = {"tested": None, "squared_error": error**2, "absolute_error": np.abs(error)}
        arrays[at] = {name: np.bincount(user, values) for name, values in sums.items()}
    files = {run.settings.get("candidates_file") for run in runs if "ranked_key" in run.arrays}
    for at, some in _select(runs, "ranked_key") if len(files) == 1 else ():
        names = runs[at].arrays.keys() - set(ROWS)
        arrays[at] |= {name: runs[at].arrays[name][some] for name in names}
    kinds = [{"tested", "ranked_key"} & found.keys() for found in arrays]
    for run, own in zip(runs, kinds):
        if sum(bool(own & other) for other in kinds) < 2:  # itself alone, or none
            raise UsageError(
                f"{run.folder}: it shares no test row and no ranked user with the others. Compare "
                "runs of the same data; rating runs are ranked where trained with --full_ranking."
            )
    return [Run(run.folder, run.settings, found) for run, found in zip(runs, arrays)]


def _select(runs: list[Run], name: str) -> list[tuple[int, np.ndarray]]:
    """Returns (number of a run, places of the common keys) of the runs that have such keys.

    Places are in the order of the keys, which is the same in all runs. None where there is no
    common key.
    """
    keys = {at: run.arrays[name] for at, run in enumerate(runs) if name in run.arrays}
    common = reduce(np.intersect1d, keys.values()) if keys else ()
    found = []
    for at, own in keys.items() if len(common) else ():
        order = np.argsort(own)
        found.append((at, order[np.searchsorted(own, common, sorter=order)]))
    return found


def _common(read: list[Run], runs: list[Run]) -> str:
    """Returns how many test rows and users are common, and how many each run has."""
    tested, ranked = (
        next((run.arrays[name] for run in runs if name in run.arrays), np.zeros(0))
        for name in ("tested", "ranked_key")
    )
    lines = []
    for key, what, count in (
        ("row_key", "common test rows", int(tested.sum())),
        ("row_user", "users with common test rows", len(tested)),
        (
            "ranked_key",
            "common users ranked with the same relevant and masked products",
            len(ranked),
        ),
    ):
        sizes = [len(np.unique(run.arrays[key])) for run in read if key in run.arrays]
        every = sizes[:1] if len(set(sizes)) == 1 else sizes
        if len(sizes) > 1:
            lines.append(f"{what}: {count:,} of {', '.join(f'{size:,}' for size in every)}")
    return "\n".join(lines)


def _settings(rows: list[list[Run]]) -> str:
    """Returns a table of the settings in which the rows differ; what a run lacks is a dash."""
    names = dict.fromkeys(name for row in rows for name in row[0].settings)
    lines = [["setting", *(str(row[0].folder) for row in rows)]]
    for name in names:
        values = [row[0].settings.get(name) for row in rows]
        if name != "workdir" and any(value != values[0] for value in values):
            lines.append([name, *(_text(value) for value in values)])
    return aligned(lines, left=range(len(rows) + 1))


def _text(value: Any) -> str:
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return "-" if value in (None, "", ()) else cut(text, 250)


def _metrics(runs: list[Run], wanted: list[str]) -> list[str]:
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--metrics={name}: no run has it by user. There are "
                f"{', '.join(known)}.{nearest(name, known)}"
            )
    k = ranking.shown_k(known)
    return wanted or [name.format(k=k) for name in SHOWN if name.format(k=k) in known]


def _differences(rows: list[list[Run]], names: list[str], resamples: int, seed: int) -> str:
    drawn = _drawn(rows, names, resamples, seed)
    lines = [
        [f"difference to {rows[0][0].folder}", "metric", "users", "difference", "from", "to", "p"]
    ]
    for number, row in enumerate(rows[1:], 1):
        label = str(row[0].folder)
        for name in [name for name in names if {(0, name), (number, name)} <= drawn.keys()]:
            means = [statistics.fmean(run.value(name) for run in of) for of in (rows[0], row)]
            value = means[1] - means[0]
            found = significance.difference(drawn[0, name], drawn[number, name], value)
            of_users = row[0].arrays["tested" if name in ERRORS else name]
            count = np.count_nonzero(~np.isnan(of_users)) if name == "auc" else len(of_users)
            figures = [f"{figure:+.4f}" for figure in (found.value, found.low, found.high)]
            lines.append([label, name, f"{count:,}", *figures, f"{found.p:.4f}"])
            label = ""
    return aligned(lines, left=(0, 1))


def _drawn(
    rows: list[list[Run]], names: list[str], resamples: int, seed: int
) -> dict[tuple[int, str], np.ndarray]:
    """Returns {(number of the row, metric): its mean over the row's runs in each draw of users,
    f64 [resamples]}.
    """
    parts: dict[str, list[str]] = {}  # metrics whose users are drawn together
    for name in names:
        part = "tested" if name in ERRORS else "auc" if name == "auc" else ""
        parts.setdefault(part, []).append(name)
    result = {}
    for part, own in parts.items():
        cells = {
            (number, name): [run.arrays[ERRORS.get(name, name)] for run in row]
            for number, row in enumerate(rows)
            for name in own
            if all(name in run.metrics for run in row)
        }
        if not cells:
            continue
        columns = np.stack([column for of_runs in cells.values() for column in of_runs], axis=1)
        if part == "auc":  # who has none has none in any run, and is not drawn
            columns = columns[~np.isnan(columns).all(axis=1)]
        first = rows[next(iter(cells))[0]][0]
        counts = first.arrays["tested"] if part == "tested" else np.ones(len(columns))
        ratios = significance.resample(columns.astype(np.float64), counts, resamples, seed)
        ends = np.cumsum([len(of_runs) for of_runs in cells.values()])
        for cell, of_runs in zip(cells, np.split(ratios, ends[:-1], axis=1)):
            result[cell] = (np.sqrt(of_runs) if cell[1] == "rmse" else of_runs).mean(axis=1)
    return result
