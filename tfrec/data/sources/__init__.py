"""The data set that the settings name -> Tables."""

from pathlib import Path

from tfrec.data.ingest import Tables
from tfrec.data.reading import database
from tfrec.data.settings import DataSettings
from tfrec.data.sources import files, movielens, tfds_sets
from tfrec.errors import UsageError

__all__ = ["Tables", "read"]


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
    con = database(folder)
    if config.dataset == "files":
        return files.read(config, con)
    if config.dataset.startswith("tfds:"):
        return tfds_sets.read(config, con)
    return movielens.read(config, con)
