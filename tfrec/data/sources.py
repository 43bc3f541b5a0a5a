"""The data set that the settings name -> Tables."""

from tfrec.config import DataConfig
from tfrec.data import files, movielens, tfds_sets
from tfrec.data.tables import PARTS, Tables

__all__ = ["PARTS", "Tables", "read"]


def read(config: DataConfig) -> Tables:
    """Reads the tables and checks them.

    Raises:
        TfrecError: a file is missing or broken; the message names file, row and column.
        UsageError: the settings name a column that is not there.
    """
    if config.dataset == "files":
        return files.read(config)
    if config.dataset.startswith("tfds:"):
        return tfds_sets.read(config)
    return movielens.read(config)
