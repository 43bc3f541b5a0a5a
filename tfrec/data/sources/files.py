"""Your own files -> Tables.

Interactions, and where there are some, attributes of products and users.
"""

import glob
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tfrec.data.careful import quoted, separator_hint
from tfrec.data.layout import Kind, Layout, is_parquet
from tfrec.data.reader import File, header, read_file, read_pieces
from tfrec.data.settings import INTERACTION, DataSettings
from tfrec.data.tables import PARTS, Attributes, Piece, Stream, Tables, complete, distinct
from tfrec.errors import TfrecError, UsageError, nearest

_KINDS: dict[str, Kind] = {"user": "id", "product": "id", "rating": "number", "timestamp": "whole"}


def read(config: DataSettings) -> Tables:
    """Returns the tables of --interactions (or --train_file and its kin), --products and
    --users.
    """
    notes: list[str] = []
    if config.split == "files":
        files = {
            "train": config.train_file,
            "validation": config.validation_file,
            "test": config.test_file,
        }
        parts = [
            _interactions(file, config, notes).assign(part=PARTS.index(part))
            for part, file in files.items()
            if file
        ]
        interactions = _together(parts)
        shared = int(interactions.duplicated(["user", "product"]).sum())
        if shared:
            notes.append(
                f"--split=files: {shared:,} rows have a user and product of an earlier file (of "
                "--train_file: known before the test)"
            )
    else:
        interactions = _interactions(config.interactions, config, notes)
    return _tables(interactions, config, notes)


def stream(config: DataSettings) -> Stream:
    """Returns the same in pieces, with every row of a user and product.

    --interactions may be several files: a.csv,b.csv or part-*.csv.gz.
    """
    notes: list[str] = []
    if config.split == "files":
        paths = [
            (PARTS.index(part), getattr(config, f"{part}_file"))
            for part in PARTS
            if getattr(config, f"{part}_file")
        ]
    else:
        paths = [(-1, path) for path in several(config.interactions)]
    parts = [(part, _laid_out(path, config, notes)) for part, path in paths]
    for _, file in parts[1:]:
        for column in {*file.layout.columns.values()} ^ {*parts[0][1].layout.columns.values()}:
            raise TfrecError(f"{file.name}: column {column} is not in each of the files.")

    def pieces() -> Iterator[Piece]:
        for part, file in parts:
            for table, texts in read_pieces(file, _KINDS):
                yield Piece(
                    file.check_times(table) if "timestamp" in table else table,
                    file.name,
                    part,
                    texts,
                )

    return Stream(pieces(), lambda interactions: _tables(interactions, config, notes), notes)


def several(paths: str) -> list[str]:
    """Returns the files that a flag names.

    With commas between them, or with *, ? and [] for those of such names, in alphabetical order.
    """
    if Path(paths).expanduser().exists():
        return [paths]
    return [
        path
        for name in paths.split(",")
        for path in sorted(glob.glob(str(Path(name).expanduser()))) or [name]
    ]


def _tables(interactions: pd.DataFrame, config: DataSettings, notes: list[str]) -> Tables:
    products = _attributes("products", config.products_id or config.product_column, config, notes)
    users = _attributes("users", config.users_id or config.user_column, config, notes)
    return complete(
        interactions,
        products,
        users,
        Attributes.of(config, "products"),
        Attributes.of(config, "users"),
        notes,
    )


def _laid_out(path: str, config: DataSettings, notes: list[str]) -> File:
    """Returns a file of interactions with its columns."""
    file = _file(path, config, notes)
    layout = _headerless(file, config) if config.columns else _with_header(file, config)
    return File(file.path, layout, file.skip_bad, notes)


def _interactions(path: str, config: DataSettings, notes: list[str]) -> pd.DataFrame:
    file = _laid_out(path, config, notes)
    table = read_file(file, _KINDS)
    if "timestamp" in table:
        table = file.check_times(table)
    return distinct(table, file.name, config.duplicates, notes)


def _headerless(file: File, config: DataSettings) -> Layout:
    if is_parquet(file.path):
        raise UsageError(
            f"--columns: {file.name} is a Parquet file and has names of its own. Give "
            "--user_column and its kin."
        )
    columns = {
        f"-{at}" if name == "-" else name: name.strip("-") for at, name in enumerate(config.columns)
    }
    return Layout(file.name, columns, file.layout.separator)


def _with_header(file: File, config: DataSettings) -> Layout:
    """Columns that may lack and were not asked for by name are left out with a note."""
    names, columns = header(file), {}
    for ours in INTERACTION:
        flag = f"{ours}_column"
        theirs = getattr(config, flag)
        if (
            theirs in names
            or ours in ("user", "product")
            or theirs != getattr(DataSettings(), flag)
        ):
            _find(
                file,
                theirs,
                names,
                f"--{flag}",
                " Without a header: --columns=user,product,rating,timestamp.",
            )
            columns[theirs] = ours
        else:
            meaning = "every rating is 1" if ours == "rating" else "there is no context"
            file.notes.append(f"{file.name}: no column {theirs}, so {meaning} (--{flag} names one)")
    return Layout(file.name, columns, file.layout.separator, header=True)


def _attributes(
    side: str, id_column: str, config: DataSettings, notes: list[str]
) -> pd.DataFrame | None:
    """Returns the table of --products or --users by id.

    The title of products, texts, lists and numbers; None or NaN where missing.
    """
    path = getattr(config, side)
    if not path:
        return None
    file, attributes, title = (
        _file(path, config, notes),
        Attributes.of(config, side),
        config.products_title,
    )
    for column in attributes.names():
        if column in (id_column, title if side == "products" else id_column):
            raise UsageError(
                f"--{side}_...: column {column} is the id or the title, so it is no feature."
            )
    names = header(file)
    flags = {id_column: f"--{side}_id"} | {column: f"--{side}_..." for column in attributes.names()}
    if side == "products" and (title in names or title != DataSettings().products_title):
        flags[title] = "--products_title"
    for column, flag in flags.items():
        _find(file, column, names, flag)
    unused = [name for name in names if name not in flags]
    if unused:
        notes.append(
            f"{file.name}: unused columns {', '.join(unused)} (--{side}_categorical and its kin "
            "make features of them)"
        )
    layout = Layout(
        file.name, {column: column for column in flags}, file.layout.separator, header=True
    )
    file = File(file.path, layout, file.skip_bad, notes)
    kinds: dict[str, Kind] = {column: "number or nothing" for column in attributes.numeric}
    table = read_file(file, kinds | {id_column: "id"})
    table = file.without(table, table[id_column].duplicated(), id_column, "stands there twice.")
    found: dict[str, object] = (
        {"title": _or_none(table[title]) if title in flags else None} if side == "products" else {}
    )
    found |= {column: _or_none(table[column]) for column in attributes.categorical}
    found |= {
        column: table[column].map(lambda value: _items(value, config.value_separator))
        for column in attributes.multivalued
    }
    found |= {column: table[column] for column in attributes.numeric}
    return pd.DataFrame(found, index=table.index).set_axis(pd.Index(table[id_column].to_numpy()))


def _file(path: str, config: DataSettings, notes: list[str]) -> File:
    """Returns the file with its separator, and no columns yet."""
    tabs = config.separator in ("tab", "\\t") or (
        not config.separator and Path(path.removesuffix(".gz")).suffix in (".tsv", ".tab")
    )
    layout = Layout(path, {}, "\t" if tabs else config.separator or ",", header=True)
    return File(Path(path).expanduser(), layout, config.on_bad_rows == "skip", notes)


def _find(file: File, column: str, names: list[str], flag: str, hint: str = "") -> None:
    """Raises TfrecError where the column is not there, or there twice."""
    if column not in names:
        hint = separator_hint(names, file.layout.separator) or nearest(column, names) or hint
        raise TfrecError(
            f"{file.name}, row 1: no column {column} among {quoted(', '.join(names))} "
            f"({flag}).{hint}"
        )
    if names.count(column) > 1:
        raise TfrecError(
            f"{file.name}, row 1: there are {names.count(column)} columns {column}. Rename one of "
            "them."
        )


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """One table; ids are text where they are text in one of the files.

    Raises:
        TfrecError: a column is there in some of the files only.
    """
    for part in parts[1:]:
        for column in set(part.columns) ^ set(parts[0].columns):
            raise TfrecError(f"--split=files: column {column} is not in each of the files.")
    for name in ("user", "product"):
        if len({part[name].dtype for part in parts}) > 1:
            parts = [part.assign(**{name: part[name].astype(str).astype(object)}) for part in parts]
    return pd.concat(parts)


def _or_none(texts: pd.Series) -> pd.Series:
    stripped = texts.map(lambda text: text.strip() if isinstance(text, str) else str(text))
    return stripped.where(stripped != "", None)


def _items(value: object, separator: str) -> list[str]:
    """Returns the different values of a multi-valued field, in order."""
    items = value if isinstance(value, list) else str(value).split(separator)
    return list(dict.fromkeys(item.strip() for item in items if item.strip()))
