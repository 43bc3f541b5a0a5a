"""Dataset: users, products and all of their interactions, before they are split."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec import settings as parts
from tfrec.data import features, sources, splits
from tfrec.data.catalog import Catalog
from tfrec.data.ingest import Tables
from tfrec.data.interactions import Columns, Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.reading import database
from tfrec.data.settings import (
    DATASETS,
    SPLITS,
    DataSettings,
    Features,
    Files,
    Frames,
    made_of,
    source_of,
)
from tfrec.data.sources import frames
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError, nearest
from tfrec.system.text import said


@dataclass(frozen=True, eq=False)
class Dataset:
    """Interactions in memory, with the users and products that they are of.

    Args:
        catalog: Users and products.
        columns: Of all rows, as in MemoryInteractions.
    """

    catalog: Catalog
    columns: Columns

    def __len__(self) -> int:
        return len(self.columns["user"])

    def __repr__(self) -> str:
        return f"{self.catalog!r}, {len(self):,} rows"

    @functools.cached_property
    def interactions(self) -> MemoryInteractions:
        """Returns all rows, in memory."""
        return MemoryInteractions(self.catalog, self.columns)

    @property
    def default_split(self) -> str:
        """Returns the split that --split=auto stands for."""
        return "user_temporal" if "timestamp" in self.columns else "random"

    @staticmethod
    def from_tables(tables: Tables, config: DataSettings) -> "Dataset":
        """Returns the data set of what a source gives.

        Raises:
            TfrecError, UsageError: As features.build.
        """
        return Dataset(features.build(tables, config), features.columns(tables.rows, config))

    @staticmethod
    def from_pandas(
        interactions: pd.DataFrame,
        products: pd.DataFrame | None = None,
        users: pd.DataFrame | None = None,
        **settings: Any,
    ) -> "Dataset":
        """Makes a data set of frames.

        Args:
            interactions: Who rated or took what, a row each: the columns user, product and, if
                there are such, rating and timestamp (seconds since 1970, or dates). Other names
                are given as user_column, product_column, rating_column, timestamp_column.
            products: A row each: the id, the title, and columns that make features, which
                products_categorical, products_multivalued, products_numeric and products_text
                name.
            users: The same, without a title.
            settings: These, numeric_bins, event_column and event_weights, weight_column,
                duplicates, context, context_encoding, time_zone; see docs/data.md.

        Raises:
            UsageError: A column is not there, or a setting is wrong.
            TfrecError: A value is missing or malformed.

        Example:
            >>> frame = pd.DataFrame({"user": [1, 1, 2], "product": ["a", "b", "a"]})
            >>> data = tfrec.Dataset.from_pandas(frame)
        """
        frames_given = {"interactions": interactions, "products": products, "users": users}
        for name, frame in frames_given.items():
            if frame is not None and not isinstance(frame, pd.DataFrame):
                raise UsageError(
                    f"{name}={type(frame).__name__}: expected a DataFrame. tfrec.read reads files."
                )
        config = made_of((Frames, Features), dataset="frames", **settings)
        return _noted(frames.read(interactions, products, users, config), config)

    def split(self, how: str = "auto", **settings: Any) -> Split:
        """Divides the rows into training, validation and test rows.

        Args:
            how: random, temporal, user_temporal, leave_one_out, kfold, by_product, cold_user or
                cold_product; auto: user_temporal, or random without timestamps.
            settings: validation_fraction, and what the split has besides: test_fraction,
                split_seed, folds, fold.

        Raises:
            UsageError: The data lack what the split needs, a part that needs rows has none, or a
                setting is wrong.

        Example:
            >>> split = data.split("leave_one_out", validation_fraction=0.05)
        """
        how = self.default_split if how == "auto" else how
        if how not in SPLITS:
            raise UsageError(
                f"split={how}: expected one of {', '.join(SPLITS)}.{nearest(how, SPLITS)}"
            )
        if how == "files":
            raise UsageError("split=files: it goes with tfrec.train, which reads its files.")
        config = made_of((SPLITS[how],), split=how, **settings)
        made = self.split_by(config)
        for line in splits.surprises(made, config):
            print(line)
        return made

    def split_by(self, config: DataSettings) -> Split:
        """Divides the rows by config.split, which is not auto.

        Raises:
            UsageError: The data lack what the split needs, or a part that needs rows has none.
        """
        names = {"user", "product", "timestamp", "part"} & self.columns.keys()
        con = database(memory=config.memory_limit)
        columns = {name: self.columns[name] for name in names}
        place = np.arange(len(self), dtype=np.int32)
        con.register("given", pd.DataFrame({"place": place} | columns, copy=False))
        table = splits.Table(
            con, "SELECT * FROM given", frozenset(names), len(self), self.catalog.num_products
        )
        part, rows = splits.divide(table, config), self.interactions
        if config.positive_from is not None:
            ratings = rows.rating if self.catalog.rated else None
            part = splits.without_disliked(part, ratings, config.positive_from)
        train, validation, test = (rows.take(part == number) for number in range(len(PARTS)))
        train.split_by_time = config.split in splits.BY_TIME
        if config.positive_from is not None:
            train.disliked = rows.take(part == splits.DISLIKED)
        return Split(train, validation, test)


def load(name: str, **settings: Any) -> Dataset:
    """Loads a data set by its name.

    Args:
        name: A MovieLens edition (latest-small ships with tfrec; latest, 100k, 1m, 10m, 20m, 25m
            and 32m are downloaded, or read from data_dir), or tfds:NAME, which TFDS has prepared.
        settings: data_dir, duplicates, on_bad_rows; context, context_encoding, time_zone,
            year_bins; with tfds:NAME the names of columns, as in `read`.

    Raises:
        UsageError: There is no such data set, or a setting is wrong.
        TfrecError: A file is missing or broken; the message names file, row and column.

    Example:
        >>> data = tfrec.load("latest-small")
    """
    kind = name.partition(":")[0]
    named = name in DATASETS or parts.names_any(name, DATASETS)
    if kind in ("files", "synthetic", "blocks") or not named:
        known = [each for each in DATASETS if each not in ("files", "synthetic", "blocks:FOLDER")]
        raise UsageError(
            f"name={name}: expected one of {', '.join(known)}.{nearest(name, known)} "
            "tfrec.read reads files."
        )
    config = made_of((source_of(name), Features), dataset=name, **settings)
    return _noted(sources.read(config), config)


def read(interactions: str | Path, **settings: Any) -> Dataset:
    """Reads files of your own: CSV and its kin (also gzip, zstd), JSON lines or Parquet.

    Args:
        interactions: Who rated or took what, a row each: the columns user, product and, if there
            are such, rating and timestamp (seconds since 1970, or dates). Several files as
            "a.csv,b.csv", "part-*.csv" or a folder.
        settings: Other names of these: user_column, product_column, rating_column,
            timestamp_column. Tables of products and users, and which of their columns make
            features: products, products_categorical, products_multivalued, products_numeric,
            products_text, products_title, users and its kin, numeric_bins. What rows mean:
            event_column and event_weights, weight_column. How to read: separator, quoting,
            encoding, columns (of a file without a header), timestamp_format, value_separator,
            duplicates, on_bad_rows. context, context_encoding, time_zone.

    Raises:
        UsageError: A setting is wrong.
        TfrecError: A file is missing or broken; the message names file, row and column.

    Example:
        >>> data = tfrec.read("orders.csv", user_column="customer", product_column="sku")
    """
    for name, path in {"interactions": interactions, **settings}.items():
        if isinstance(path, pd.DataFrame):
            raise UsageError(f"{name}: expected a file. tfrec.Dataset.from_pandas takes frames.")
    given = {"dataset": "files", "interactions": str(interactions)}
    config = made_of((Files, Features), **given, **settings)
    return _noted(sources.read(config), config)


def _noted(tables: Tables, config: DataSettings) -> Dataset:
    """Returns the data set, with what was left out of it on the console."""
    for note in tables.notes:
        print(said(note))
    return Dataset.from_tables(tables, config)
