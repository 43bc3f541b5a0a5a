"""The data set that the settings name -> Tables."""

import tempfile
from dataclasses import replace
from pathlib import Path

from tfrec.data.ingest import Tables
from tfrec.data.paths import several
from tfrec.data.reading import database, enough
from tfrec.data.settings import EDITIONS, DataSettings
from tfrec.data.sources import files, movielens, tfds_sets
from tfrec.errors import UsageError

__all__ = ["Tables", "read"]

LARGE = 2**26  # bytes of files whose rows DuckDB keeps on disk


def read(config: DataSettings, folder: Path | None = None) -> Tables:
    """Reads the tables and checks them.

    Args:
        config: Which.
        folder: Where the rows lie; None: in memory, or a temporary folder if they are many.

    Raises:
        TfrecError: A file is missing or broken; the message names file, row and column.
        UsageError: The settings name a column that is not there.
    """
    if config.dataset == "synthetic":
        raise UsageError(
            "--dataset=synthetic: draw it with scripts/prepare.py, and train on the folder that "
            "it writes."
        )
    own = tempfile.TemporaryDirectory() if not folder and _size(config) > LARGE else None
    with enough(config.memory_limit):
        con = database(Path(own.name) if own else folder, config.memory_limit)
        if config.dataset == "files":
            tables = files.read(config, con)
        elif config.dataset.startswith("tfds:"):
            tables = tfds_sets.read(config, con)
        else:
            tables = movielens.read(config, con)
    return replace(tables, folder=own)


def _size(config: DataSettings) -> int:
    """Returns the bytes of the files of interactions; of an edition, about as many as it has."""
    if config.dataset in EDITIONS:
        return 0 if config.dataset in ("latest-small", "100k", "1m") else 2**29
    names = (config.train_file, config.test_file, config.validation_file)
    paths = [Path(path) for path in several(config.interactions)] if config.interactions else []
    paths += [Path(name).expanduser() for name in names if name]
    return sum(path.stat().st_size for path in paths if path.is_file())
