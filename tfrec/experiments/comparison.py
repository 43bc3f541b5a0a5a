"""Finished runs side by side.

Their test metrics, and whether they differ by more than the choice of users explains.
"""

import dataclasses
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tfrec.data.settings import DataSettings
from tfrec.errors import UsageError, nearest
from tfrec.evaluation import ranking, significance
from tfrec.experiments import per_user, workdirs
from tfrec.system.text import aligned, spread

SHOWN = ("rmse", "mae", "hr@{k}", "ndcg@{k}", "recall@{k}", "mrr@{k}", "auc")
ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}
JUDGING = (
    "relevance_threshold",
    "candidates_file",
    "evaluation_context",
    "fallbacks",
    "ranked_users",
)  # must agree; k need not


@dataclass(frozen=True)
class Run:
    """A finished run: its settings by name, metrics.json's test part, and users.npz."""

    folder: Path
    settings: dict[str, Any]
    test: dict[str, float]
    arrays: dict[str, np.ndarray]

    @property
    def metrics(self) -> list[str]:
        """What can be compared user by user, in the order of users.npz."""
        rated = list(ERRORS) if "tested" in self.arrays else []
        return rated + [
            name for name in self.arrays if name in self.test and (name == "auc" or "@" in name)
        ]


def compare(folders: list[Path], metrics: list[str], resamples: int, seed: int) -> str:
    """Two tables: the test metrics of each row of runs, and their differences to the first row. A
    row holds the seeds of one setting.

    metrics: names; none: those of SHOWN that the runs have.

    Raises: UsageError: a folder without a finished run, runs that were not tested alike, or a
        metric that no run has. TfrecError: a run without users.npz.
    """
    runs = [_read(folder) for folder in folders]
    for run in runs[1:]:
        _check_alike(runs[0], run)
    names, rows = _metrics(runs, metrics), _by_setting(runs)
    lines = [["test", "seeds", *names]]
    for row in rows:
        seeds = ",".join(str(run.settings.get("seed", "-")) for run in row)
        lines.append(
            [
                str(row[0].folder),
                seeds,
                *(spread([run.test.get(name) for run in row]) for name in names),
            ]
        )
    text = aligned(lines, left=(0, 1))
    if len(rows) == 1:
        return text
    return (
        f"{text}\n\n{_differences(rows, names, resamples, seed)}\npaired bootstrap over "
        f"users, {resamples:,} draws, 95 % intervals"
    )


def _read(folder: Path) -> Run:
    settings = workdirs.settings(folder).flat()
    return Run(folder, settings, workdirs.metrics(folder)["test"], per_user.read(folder))


def _check_alike(first: Run, run: Run) -> None:
    """Both must have been tested on the same rows, in the same way, after having seen the same
    rows.
    """
    names = [name for name in JUDGING if first.settings.get(name) != run.settings.get(name)]
    if first.arrays["rows"] != run.arrays["rows"]:
        of_rows = [field.name for field in dataclasses.fields(DataSettings)]
        differing = [name for name in of_rows if first.settings.get(name) != run.settings.get(name)]
        names += differing or ["the data themselves"]
    if names:
        raise UsageError(
            f"{run.folder} cannot be compared with {first.folder}: they differ in "
            f"{', '.join(names)}."
        )


def _metrics(runs: list[Run], wanted: list[str]) -> list[str]:
    known = list(dict.fromkeys(name for run in runs for name in run.metrics))
    for name in wanted:
        if name not in known:
            raise UsageError(
                f"--metrics={name}: no run has it by user. There are "
                f"{', '.join(known)}.{nearest(name, known)}"
            )
    k = ranking.primary_k(runs[0].settings.get("k", (10,)))
    return wanted or [name.format(k=k) for name in SHOWN if name.format(k=k) in known]


def _by_setting(runs: list[Run]) -> list[list[Run]]:
    """Runs that differ in their seed alone make a row.

    A seed that is there already opens a new one (the code has changed, say).
    """
    rows: list[tuple[dict, list[Run]]] = []
    for run in runs:
        settings = {
            name: value for name, value in run.settings.items() if name not in ("seed", "workdir")
        }
        open_rows = [
            row
            for there, row in rows
            if there == settings
            and all(run.settings.get("seed") != other.settings.get("seed") for other in row)
        ]
        if open_rows:
            open_rows[0].append(run)
        else:
            rows.append((settings, [run]))
    return [row for _, row in rows]


def _differences(rows: list[list[Run]], names: list[str], resamples: int, seed: int) -> str:
    drawn = _drawn(rows, names, resamples, seed)
    lines = [
        [f"difference to {rows[0][0].folder}", "metric", "users", "difference", "from", "to", "p"]
    ]
    for number, row in enumerate(rows[1:], 1):
        label = str(row[0].folder)
        for name in [name for name in names if {(0, name), (number, name)} <= drawn.keys()]:
            value = statistics.fmean(run.test[name] for run in row) - statistics.fmean(
                run.test[name] for run in rows[0]
            )
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
    """{(number of the row, metric).

    Its mean over the row's runs for each draw of users, f64 [resamples]}.
    """
    result = {}
    for kind in (tuple(ERRORS), ("auc",), [name for name in names if name not in (*ERRORS, "auc")]):
        part = [name for name in names if name in kind]
        cells = [
            (number, name)
            for number, row in enumerate(rows)
            for name in part
            if all(name in run.metrics for run in row)
        ]
        if not cells:
            continue
        columns = np.stack(
            [run.arrays[ERRORS.get(name, name)] for number, name in cells for run in rows[number]],
            axis=1,
        )
        if part == ["auc"]:
            columns = columns[
                ~np.isnan(columns).all(axis=1)
            ]  # who has no AUC has none in any run, and is not drawn
        counts = (
            rows[cells[0][0]][0].arrays["tested"] if part[0] in ERRORS else np.ones(len(columns))
        )
        ratios = significance.resample(columns.astype(np.float64), counts, resamples, seed)
        ends = np.cumsum([len(rows[number]) for number, _ in cells])
        for (number, name), of_runs in zip(cells, np.split(ratios, ends[:-1], axis=1)):
            result[number, name] = (np.sqrt(of_runs) if name == "rmse" else of_runs).mean(axis=1)
    return result
