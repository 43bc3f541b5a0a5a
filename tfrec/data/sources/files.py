"""Your own files -> Tables.

Interactions, and where there are some, attributes of products and users.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd

from tfrec.data import ingest
from tfrec.data.forms import (
    File,
    form_of,
    literal,
    quoted,
    readable,
    separator_hint,
    short,
)
from tfrec.data.ingest import Given, Tables
from tfrec.data.paths import several
from tfrec.data.reading import BLANKS, Kind, Reading, database
from tfrec.data.settings import INTERACTION, NO_WEIGHT, WEIGHT, DataSettings
from tfrec.data.tables import MISSING, PARTS, SIDES, Attributes, as_ids, check_events
from tfrec.errors import TfrecError, UsageError, nearest

KINDS: dict[str, Kind] = {
    "user": "id",
    "product": "id",
    "rating": "number",
    "timestamp": "time",
    "event": "text",
    "weight": "number",
}


def read(config: DataSettings, con: duckdb.DuckDBPyConnection) -> Tables:
    """Returns the tables of --interactions (or --train_file and its kin), --products and --users.

    Args:
        config: The settings.
        con: A connection to the data base that takes up the rows.
    """
    notes: list[str] = []
    sides = {"product": config.products_id, "user": config.users_id}
    columns = {side: given or getattr(config, f"{side}_column") for side, given in sides.items()}
    paths = [(-1, path) for path in several(config.interactions)]
    if config.split == "files":
        paths = _of_parts(config)
    files = [_laid_out(con, path, config, notes) for _, path in paths]
    _check_columns(files)
    readings = [Reading(con, file, KINDS) for file in files]
    events = set().union(*(_weigh(reading, config) for reading in readings))
    if config.event_weights:
        notes += check_events(files[0].name, events, config.weight_of, "--event_weights")
    given = Given(readings, [part for part, _ in paths])
    tables = {side: _attributes(f"{side}s", columns[side], config, notes) for side in SIDES}
    rows = ingest.of_files(given, tables, config, notes)
    if config.split == "files" and (shared := rows.shared()):
        notes.append(
            f"--split=files: {shared:,} rows have a user and product of an earlier file (of "
            "--train_file: known before the test)"
        )
    of = {side: Attributes.of(config, f"{side}s") for side in SIDES}
    return ingest.with_tables(rows, tables, of, notes)


def _weigh(reading: Reading, config: DataSettings) -> set[str]:
    """Makes weights of events, leaves out rows that are not rated, and returns the events."""
    columns, file = reading.columns, reading.file
    if config.missing_ratings and "rating" in columns:
        values = ", ".join(f"{value!r}::FLOAT" for value in config.missing_ratings)
        if count := reading.leave_out(f"{columns['rating']}::FLOAT IN ({values})"):
            file.note("left out", count, "row{} without a rating (--missing_ratings)")
    if "weight" in columns:
        reading.require("weight", f"value BETWEEN {WEIGHT[0]} AND {WEIGHT[1]}", NO_WEIGHT)
    if "event" not in columns:
        return set(config.weight_of)
    event = f"coalesce(trim({columns.pop('event')}, {BLANKS}), '')"
    found = reading.distinct(event)
    weights = " ".join(f"WHEN {literal(n)} THEN {w!r}" for n, w in config.weight_of.items())
    weight = f"CASE {event} {weights} END"
    if others := sorted(found - config.weight_of.keys()):
        count = reading.leave_out(f"({weight}) IS NULL")
        file.note(
            "left out", count, f"row{{}} of other events, such as {short(others[0]) or MISSING}"
        )
    columns["weight"] = f"{columns['weight']} * {weight}" if "weight" in columns else weight
    return found


def _of_parts(config: DataSettings) -> list[tuple[int, str]]:
    """Returns (place in PARTS, file) of the files of --split=files."""
    files = [(at, getattr(config, f"{part}_file")) for at, part in enumerate(PARTS)]
    return [(at, file) for at, file in files if file]


def _laid_out(
    con: duckdb.DuckDBPyConnection, path: str, config: DataSettings, notes: list[str]
) -> File:
    """Returns a file of interactions with its columns."""
    file = _file(path, config, notes)
    if not config.columns:
        return _with_header(con, file, config)
    kind = form_of(file).name
    if kind:
        raise UsageError(
            f"--columns: {file.name} is a {kind} file and has names of its own. Give --user_column "
            "and its kin."
        )
    names = tuple(f"-{at}" if name == "-" else name for at, name in enumerate(config.columns))
    columns = {name: name for name in names if not name.startswith("-")}
    return replace(file, names=names, columns=columns)


def _check_columns(files: list[File]) -> None:
    """Raises TfrecError where a column is there in some of the files only."""
    for file in files[1:]:
        for column in file.columns.keys() ^ files[0].columns.keys():
            raise TfrecError(f"{file.name}: column {column} is not in each of the files.")


def _names(con: duckdb.DuckDBPyConnection, file: File) -> list[str]:
    """Returns the names of a file's columns."""
    with readable(file.path), tempfile.TemporaryDirectory() as folder:
        return form_of(file)(con, file, Path(folder)).names


def _with_header(con: duckdb.DuckDBPyConnection, file: File, config: DataSettings) -> File:
    """Columns that may lack and were not asked for by name are left out with a note."""
    names, columns = _names(con, file), {}
    for name in INTERACTION:
        flag = f"{name}_column"
        source_name = getattr(config, flag)
        if (
            source_name in names
            or name in ("user", "product")
            or source_name != getattr(DataSettings(), flag)
        ):
            _find(
                file,
                source_name,
                names,
                f"--{flag}",
                " Without a header: --columns=user,product,rating,timestamp.",
            )
            columns[name] = source_name
        elif name == "timestamp" or not (config.event_column or config.weight_column):
            meaning = "every rating is 1" if name == "rating" else "there is no context"
            file.notes.append(
                f"{file.name}: no column {source_name}, so {meaning} (--{flag} names one)"
            )
    for name in ("event", "weight"):
        if source_name := getattr(config, f"{name}_column"):
            _find(file, source_name, names, f"--{name}_column")
            columns[name] = source_name
    return replace(file, columns=columns)


def _attributes(
    side: str, id_column: str, config: DataSettings, notes: list[str]
) -> pd.DataFrame | None:
    """Returns the table of --products or --users by id.

    The title of products, texts, lists and numbers; None or NaN where missing.
    """
    path = getattr(config, side)
    if not path:
        return None
    file, of, title = _file(path, config, notes), Attributes.of(config, side), config.products_title
    for column in of.names():
        if column in (id_column, title if side == "products" else id_column):
            raise UsageError(
                f"--{side}_...: column {column} is the id or the title, so it is no feature."
            )
    con = database()
    names = _names(con, file)
    flags = {id_column: f"--{side}_id"}
    flags |= {column: f"--{side}_{config.kind_of(side, column)}" for column in of.names()}
    asked = title != DataSettings().products_title or "title" in of.text
    if side == "products" and (title in names or asked):
        flags[title] = "--products_text" if title in config.products_text else "--products_title"
    for column, flag in flags.items():
        _find(file, column, names, flag)
    unused = [name for name in names if name not in flags]
    if unused:
        notes.append(
            f"{file.name}: unused columns {', '.join(unused)} (--{side}_categorical and its kin "
            "make features of them)"
        )
    kinds: dict[str, Kind] = {id_column: "id"}
    kinds |= {column: "number or nothing" for column in of.numeric}
    kinds |= {column: "items" for column in of.multivalued}
    reading = Reading(con, replace(file, columns={column: column for column in flags}), kinds)
    table = reading.frame()
    texts = table[id_column].to_numpy(object)
    ids = pd.Index(texts if id_column in reading.texts else as_ids(texts))
    table = reading.without(table, ids.duplicated(), id_column, "stands there twice.")
    found: dict[str, object] = {}
    if side == "products":
        found["title"] = _or_none(table[title]) if title in flags else None
    found |= {column: _or_none(table[column]) for column in of.categorical + of.described}
    found |= {column: table[column] for column in (*of.multivalued, *of.numeric)}
    return pd.DataFrame(found, index=table.index).set_axis(ids[~ids.duplicated()])


def _file(path: str, config: DataSettings, notes: list[str]) -> File:
    """Returns the file as it is written, and no columns yet."""
    plain = Path(path.removesuffix(".gz").removesuffix(".zst"))
    tabs = config.separator in ("tab", "\\t") or (
        not config.separator and plain.suffix in (".tsv", ".tab")
    )
    return File(
        Path(path).expanduser(),
        separator="\t" if tabs else config.separator or ",",
        encoding=config.encoding,
        quoting=config.quoting,
        time_format=config.timestamp_format,
        value_separator=config.value_separator,
        skip_bad=config.on_bad_rows == "skip",
        notes=notes,
    )


def _find(file: File, column: str, names: list[str], flag: str, hint: str = "") -> None:
    """Raises TfrecError where the column is not there, or there twice."""
    if column not in names:
        hint = separator_hint(names, file.separator) or nearest(column, names) or hint
        raise TfrecError(
            f"{file.name}, row 1: no column {column} among {quoted(', '.join(names))} "
            f"({flag}).{hint}"
        )
    if names.count(column) > 1:
        raise TfrecError(
            f"{file.name}, row 1: there are {names.count(column)} columns {column}. Rename one of "
            "them."
        )


def _or_none(texts: pd.Series) -> pd.Series:
    stripped = texts.str.strip().astype(object)
    return stripped.where(stripped != "", None)
