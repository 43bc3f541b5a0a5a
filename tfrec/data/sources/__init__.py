"""The data set that the settings name -> Tables."""

from dataclasses import replace
from pathlib import Path

from tfrec.data.settings import DataSettings
from tfrec.data.sources import files, movielens, tfds_sets
from tfrec.data.tables import PARTS, Piece, Stream, Tables
from tfrec.errors import UsageError

__all__ = ["PARTS", "Stream", "Tables", "read", "stream"]


def read(config: DataSettings) -> Tables:
    """Reads the tables and checks them.

    Raises:
        TfrecError: a file is missing or broken; the message names file, row and column.
        UsageError: the settings name a column that is not there.
    """
    if config.dataset == "synthetic":
        raise UsageError(
            "--dataset=synthetic: draw it with scripts/prepare.py, and train on the folder that "
            "it writes."
        )
    if config.dataset == "files":
        return files.read(config)
    if config.dataset.startswith("tfds:"):
        return tfds_sets.read(config)
    return movielens.read(config)


def stream(config: DataSettings, folder: Path) -> Stream:
    """As read, piece by piece, so that the interactions need not fit into memory.

    A set of TFDS is one piece: it does have to.
    """
    if config.dataset == "files":
        return files.stream(config, folder)
    if config.dataset.startswith("tfds:"):
        tables = tfds_sets.read(config)
        texts = {"user", "product"}
        piece = Piece(tables.interactions, config.dataset, -1, texts, lambda row: row)
        return Stream(
            iter([piece]),
            lambda interactions: replace(tables, interactions=interactions),
            tables.notes,
        )
    return movielens.stream(config, folder)
