"""A run's folder.

Opened by one process at a time, for one set of settings, with nothing half-written left in it.
"""

import contextlib
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfrec.errors import TfrecError, UsageError, unwritable
from tfrec.experiments import own_parts
from tfrec.experiments.config import Config, known_fields
from tfrec.experiments.flags import read_flagfile
from tfrec.system import sealed
from tfrec.system.locked import locked
from tfrec.system.outputs import check_name

DRAFT = re.compile(r"(export|[a-z]+\.(flags|json|npz))\.draft-\d+")
AGAIN = "Remove the run's folder, and train it again."
WHERE = {
    "strategy",
    "virtual_devices",
}  # a run may go on on other devices: its checkpoints are the same on all


@contextlib.contextmanager
def open_workdir(config: Config) -> Iterator[Path]:
    """Yields config.workdir, made if need be, while no other process has it.

    Raises:
        UsageError: It holds a run with other settings (the message names them) or something else,
            or another process has it.
        TfrecError: It cannot be written.
    """
    with open_workdir_as(Path(config.workdir), "config.flags", config.flagfile()) as workdir:
        yield workdir


@contextlib.contextmanager
def open_workdir_as(workdir: Path, name: str, settings: str) -> Iterator[Path]:
    """As opened; the flag file of that name in the folder holds the settings."""
    flagfile = workdir / name
    check_name(workdir, f"--workdir={workdir}")
    with locked(workdir, f"--workdir={workdir}"), _room(workdir):
        if flagfile.exists():
            there = sealed.read_text(flagfile, "Remove the folder, or take another one.")
            _check_same(workdir, there, settings)
            _clean(workdir)
            if (
                there != settings and not (workdir / "metrics.json").exists()
            ):  # it goes on elsewhere
                write(flagfile, settings)
        elif all(DRAFT.fullmatch(path.name) for path in workdir.iterdir()):
            _clean(workdir)
            write(flagfile, settings)
        else:
            raise UsageError(
                f"--workdir={workdir}: the folder is not empty, and holds no run. Take another one."
            )
        yield workdir


@contextlib.contextmanager
def _room(workdir: Path) -> Iterator[None]:
    """A full or read-only disk is one line, whoever was writing.

    What is there is whole, and the same command goes on.
    """
    try:
        yield
    except Exception as error:
        why = unwritable(error)
        if why is None or isinstance(error, TfrecError):
            raise
        path = getattr(error, "filename", None) or f"--workdir={workdir}"
        raise TfrecError(
            f"{path}: cannot be written ({why}). With that mended, run the same command again."
        ) from None


def settings(workdir: Path) -> Config:
    """Returns the settings of the finished run in the folder.

    Raises:
        UsageError: there is none.
    """
    if not (workdir / "config.flags").exists():
        raise UsageError(f"--workdir={workdir}: there is no run in this folder.")
    if not (workdir / "metrics.json").exists():
        raise UsageError(
            f"--workdir={workdir}: the run there is not finished. Let scripts/train.py finish it."
        )
    sealed.read_text(workdir / "config.flags", AGAIN)
    flags = workdir / "config.flags"
    found = read_flagfile(flags, own_parts.moved(workdir))
    return found.replace(workdir=str(workdir), **_of_before(found))


def _of_before(found: Config) -> dict[str, Any]:
    """Returns what settings that a run of an older version does not name were in it."""
    known: dict[str, Any] = {} if "refit" in found.given else {"refit": "none"}
    if found.task != "ranking":
        return known
    if "loss" in found.values and "recency" not in found.given:
        known |= {"recency": 0.0}
    if found.model == "hybrid" and "similarity" not in found.given:
        known |= {"similarity": "dot", "id_dropout": 0.0}
    if found.model == "ncf" and "dropout" not in found.given:
        layers = found.given.get("mlp_layers") or (max(found.embedding_dim // 2, 1),)
        known |= {"dropout": 0.0, "mlp_layers": layers}
    return known


def metrics(workdir: Path) -> dict[str, Any]:
    """metrics.json of the finished run in the folder.

    Raises:
        TfrecError: it is damaged.
    """
    found = sealed.read_json(workdir / "metrics.json", AGAIN)
    if not isinstance(found.get("test"), dict):
        raise TfrecError(
            f"{workdir / 'metrics.json'}: the file is damaged: it holds no test metrics. {AGAIN}"
        )
    return found


def by_setting(runs: list[Any]) -> list[list[Any]]:
    """Returns the runs in rows: those that differ in their seed alone make one.

    A seed that is there already opens a new row (the code has changed, say).

    Args:
        runs: Anything with .settings, {name: value}.
    """
    rows: list[tuple[dict, list[Any]]] = []
    for run in runs:
        settings = {
            name: value for name, value in run.settings.items() if name not in ("seed", "workdir")
        }
        seed = run.settings.get("seed")
        open_rows = [
            row
            for there, row in rows
            if there == settings and all(seed != other.settings.get("seed") for other in row)
        ]
        if open_rows:
            open_rows[0].append(run)
        else:
            rows.append((settings, [run]))
    return [row for _, row in rows]


def seeds(row: list[Any]) -> str:
    """Returns the seeds of a row of `by_setting`, or their number where there are many."""
    if len(row) > 8:
        return f"{len(row)} seeds"
    return ",".join(str(run.settings.get("seed", "-")) for run in row)


def default(config: Config, kind: str = "") -> str:
    """runs/DATASET-MODEL-TIME, with a number behind it where such a folder is there already.

    Kind: what stands before the time.
    """
    dataset = Path(config.data.dataset.partition(":")[2] or config.data.dataset).name
    name = f"runs/{dataset}-{config.model}-{kind}{time.strftime('%Y%m%d-%H%M%S')}"
    taken = (f"{name}-{number}" if number > 1 else name for number in itertools.count(1))
    return next(name for name in taken if not Path(name).exists())


def write(path: Path, content: str | bytes) -> None:
    """Writes the file under another name and renames it, so that it is whole or not there."""
    draft = path.with_name(f"{path.name}.draft-{os.getpid()}")
    try:
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        draft.rename(path)
    except OSError as error:
        raise TfrecError(f"{path}: cannot be written ({error.strerror}).") from None


def _check_same(workdir: Path, there: str, wanted: str) -> None:
    if "\n--refit=" not in there:  # of an older version, which did not train anew
        there += "\n--refit=none"
    if "\n--recency=" not in there and "\n--recency=" in wanted:  # nor weighed the latest rows
        there += "\n--recency=0.0"
    differing = {
        line
        for line in set(there.split("\n")) ^ set(wanted.split("\n"))
        if not line.startswith("#")
    }
    names = {line.lstrip("-").split("=")[0] for line in differing}
    names = {name if name in known_fields() else name.removeprefix("no") for name in names} - WHERE
    if names:
        raise UsageError(
            f"--workdir={workdir} holds a run with another {', '.join(sorted(names))}. Take "
            "another folder, or its settings."
        )


def _clean(workdir: Path) -> None:
    """Removes what a killed process had half written."""
    for draft in (path for path in workdir.iterdir() if DRAFT.fullmatch(path.name)):
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink()
