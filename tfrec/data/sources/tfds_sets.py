"""A data set that TFDS has prepared -> Tables.

Each of its examples is an interaction; attributes are those of its first one.
"""

import dataclasses
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from tfrec.data import ingest
from tfrec.data.forms import short
from tfrec.data.ingest import Tables
from tfrec.data.reading import LATEST
from tfrec.data.settings import INTERACTION, DataSettings
from tfrec.data.tables import Attributes
from tfrec.errors import TfrecError, UsageError, nearest

_OTHER_NAMES = {  # what else a column is called, MovieLens' names in TFDS first
    "user": ("user_id", "customer_id", "reviewer_id"),
    "product": ("movie_id", "product_id", "item_id", "movie"),
    "rating": ("user_rating", "star_rating", "overall"),
    "timestamp": (),
    "title": ("movie_title", "product_title"),
    "genres": ("movie_genres",),
}


def read(config: DataSettings, con: duckdb.DuckDBPyConnection) -> Tables:
    """Returns the tables of --dataset=tfds:NAME, all of its splits together.

    Args:
        config: The settings.
        con: A connection to the data base that takes up the rows.
    """
    name, notes = config.dataset.removeprefix("tfds:"), []  # type: str, list[str]
    builder, data = _open(name, config)
    features = builder.info.features
    columns = {name: _column(name, features, config) for name in INTERACTION}
    of_products, of_users = Attributes.of(config, "products"), Attributes.of(config, "users")
    if not of_products.names():
        genres = _first("genres", features)
        of_products = dataclasses.replace(of_products, multivalued=(genres,) if genres else ())
    title = (
        config.products_title if config.products_title in features else _first("title", features)
    )
    wanted = sorted(
        {*filter(None, [*columns.values(), title]), *of_products.names(), *of_users.names()}
    )
    for column in wanted:
        if column not in features:
            raise UsageError(
                f"tfds:{name}: no column {column} among "
                f"{', '.join(sorted(features))}.{nearest(column, features)}"
            )
    for column in of_products.numeric + of_users.numeric:
        if (
            not np.issubdtype(features[column].np_dtype, np.number)
            and features[column].np_dtype is not np.bool_
        ):
            raise UsageError(f"tfds:{name}, column {column}: {features[column]} is not a number.")
    table = _table(data, wanted, features)
    interactions = _interactions(
        table,
        {source_name: name for name, source_name in columns.items() if source_name},
        config,
        notes,
    )
    rows = ingest.of_frame(con, interactions)
    place = f"{config.dataset}, row {{:,}}".format
    rows.refine(config, config.dataset, place, notes)
    kept = table.loc[rows.columns(["row"])["row"]]
    kept = kept.assign(title=kept[title] if title else None)
    tables = {"product": _attributes(kept, columns["product"], ("title",), of_products)}
    tables["user"] = _attributes(kept, columns["user"], (), of_users) if of_users.names() else None
    return ingest.with_tables(rows, tables, {"product": of_products, "user": of_users}, notes)


def _open(name: str, config: DataSettings) -> tuple[Any, Any]:
    """(builder, tf.data of all its examples)."""
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    try:
        builder = tfds.builder(name, data_dir=config.data_dir or None)
        return builder, builder.as_dataset(split="all", shuffle_files=False)
    except Exception as error:  # TFDS raises AssertionError, ValueError, KeyError and its own
        reason = str(error).strip().split("\n")[0].split(". ")[0][:200].rstrip(".")
        raise TfrecError(
            f"tfds:{name}: cannot be read ({reason}). Is it prepared? tfds.load prepares it, "
            "--data_dir says where it is."
        ) from None


def _column(name: str, features: Any, config: DataSettings) -> str | None:
    """Returns the data set's name of a column; None where it may lack."""
    flag = f"{name}_column"
    asked = getattr(config, flag)
    found = asked if asked in features else _first(name, features)
    if (not found and name in ("user", "product")) or (
        asked not in features and asked != getattr(DataSettings(), flag)
    ):
        raise UsageError(
            f"{config.dataset}: no column {asked} among {', '.join(sorted(features))} "
            f"(--{flag}).{nearest(asked, features)}"
        )
    return found


def _first(name: str, features: Any) -> str | None:
    return next((name for name in _OTHER_NAMES[name] if name in features), None)


def _table(data: Any, columns: list[str], features: Any) -> pd.DataFrame:
    """Returns the columns of all examples.

    Bytes and labels as text, sequences as lists of text. Indexed by the example's number, from 1.
    """
    chosen = data.map(lambda example: {name: example[name] for name in columns}).ragged_batch(65536)
    chunks: dict[str, list[Any]] = {name: [] for name in columns}
    for chunk in chosen:
        for name in columns:
            values = (
                chunk[name].to_list()
                if hasattr(chunk[name], "to_list")
                else chunk[name].numpy().tolist()
            )
            chunks[name] += [
                _text(value, getattr(features[name], "feature", features[name])) for value in values
            ]
    return pd.DataFrame(chunks, index=pd.RangeIndex(1, 1 + len(chunks[columns[0]]), name="row"))


def _text(value: Any, feature: Any) -> Any:
    if isinstance(value, list):
        return [str(_text(item, feature)) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(feature, "int2str"):
        return feature.int2str(value) if value >= 0 else None  # TFDS writes -1 for no label
    return value


def _interactions(
    table: pd.DataFrame, columns: dict[str, str], config: DataSettings, notes: list[str]
) -> pd.DataFrame:
    """Returns the columns under our names, with the checks that files have."""
    found = table[list(columns)].rename(columns=columns)
    source_names = {name: source_name for source_name, name in columns.items()}
    wrong = {
        side: (_holds_nul(found[side]), "holds a NUL, which no id may.")
        for side in ("user", "product")
    }
    if "rating" in found:
        found["rating"] = found["rating"].astype(np.float32)
        wrong["rating"] = ~np.isfinite(found["rating"]), "is not a number."
    if "timestamp" in found:
        found = found.astype({"timestamp": np.int64})
        late = found["timestamp"].abs() >= LATEST
        wrong["timestamp"] = late, "is not a time in seconds since 1970."
    bad = np.zeros(len(found), bool)
    for name, (rows, complaint) in wrong.items():
        if rows.any():
            row = found.index[rows][0]
            value = f"column {source_names[name]}: {short(str(found[name][row]))}"
            _refuse(config, int(rows.sum()), f"row {row:,}, {value} {complaint}", notes)
        bad |= rows.to_numpy()
    return found[~bad]


def _holds_nul(ids: pd.Series) -> pd.Series:
    return ids.map(lambda value: isinstance(value, str) and "\0" in value).astype(bool)


def _refuse(config: DataSettings, count: int, first: str, notes: list[str]) -> None:
    if config.on_bad_rows != "skip":
        raise TfrecError(f"{config.dataset}, {first} Skip such rows with --on_bad_rows=skip.")
    rows = "row" if count == 1 else "rows"
    notes.append(f"{config.dataset}: skipped {count:,} {rows}; the first: {first}")


def _attributes(
    rows: pd.DataFrame, id_column: str | None, shown: tuple[str, ...], attributes: Attributes
) -> pd.DataFrame:
    """By id, the `shown` columns and the attributes of its first row."""
    first = (
        rows.drop_duplicates(id_column)
        .sort_values(id_column)
        .set_index(id_column)[[*shown, *attributes.names()]]
    )
    for column in attributes.categorical + attributes.described:
        first[column] = first[column].map(lambda value: None if value in ("", None) else str(value))
    return first
