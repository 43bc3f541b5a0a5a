"""Parts from files of the user's own: a run's folder keeps a copy of each, and its hash."""

import hashlib
import json
import shutil
from pathlib import Path

from tfrec.experiments.config import Config
from tfrec.experiments.tables import TABLES
from tfrec.system.text import said

FOLDER, HASHES = "parts", "hashes.json"


def keep(config: Config, workdir: Path) -> None:
    """Copies the files that the settings name into the run's folder."""
    files = _files(config)
    if not files or (workdir / FOLDER / HASHES).exists():
        return
    (workdir / FOLDER).mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, workdir / FOLDER / file.name)
    hashes = {str(file): _hash(file) for file in files}
    (workdir / FOLDER / HASHES).write_text(json.dumps(hashes, indent=2) + "\n")


def moved(workdir: Path) -> list[str]:
    """Returns flags that name the kept copies of files that are no longer where they were."""
    found = []
    for line in (workdir / "config.flags").read_text().splitlines():
        name, _, value = line.lstrip("-").partition("=")
        place, _, part = value.rpartition(":")
        if name in TABLES and place.endswith(".py") and not Path(place).expanduser().is_file():
            found.append(f"--{name}={workdir / FOLDER / Path(place).name}:{part}")
    return found


def changed(workdir: Path) -> list[str]:
    """Returns a line for each of the files that is no longer as it was when the run was made."""
    kept = workdir / FOLDER / HASHES
    if not kept.exists():
        return []
    lines = []
    for name, before in json.loads(kept.read_text()).items():
        file, copy = Path(name), workdir / FOLDER / Path(name).name
        if not file.is_file():
            lines.append(said(f"{file} is no longer there; its copy {copy} is taken"))
        elif _hash(file) != before:
            lines.append(said(f"{file} has changed since this run; it was trained by {copy}"))
    return lines


def _files(config: Config) -> list[Path]:
    """Those of parts that are named as path/to/file.py:Class."""
    places = [str(config.get(name, "")).rpartition(":")[0] for name in TABLES]
    return [Path(place).expanduser() for place in places if place.endswith(".py")]


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
