"""One text file -> one checked table; a malformed row is an error that names file, row and column.

`_careful` reads row by row in plain Python and says what a good row is. `_fast` is pandas' C parser for the large files, which hold
nothing but numbers; it gives up on anything odd, and then `_careful` reads the file.
"""

import csv
import re
import warnings
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec.errors import TfrecError, nearest

Location = Path | zipfile.Path

_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_LARGEST = float(np.finfo(np.float32).max)
_UNDECODED = re.compile("[\udc80-\udcff]")  # what errors="surrogateescape" makes of bytes that are not in the encoding


@dataclass(frozen=True)
class Layout:
    """How a text table is written: {column in the file: our name, "" to ignore it}, in the file's order."""

    file: str
    columns: dict[str, str]
    separator: str = ","
    header: bool = False
    encoding: str = "utf-8-sig"


def read(path: Location, layout: Layout, numbers: dict[str, type], skip_bad: bool, notes: list[str]) -> pd.DataFrame:
    """The table at `path`, its columns under our names, indexed by the row's number in the file (the first row is 1).

    Args:
        numbers: {column: int or float}: columns that must hold finite numbers; the others hold strings ("" where empty).
        skip_bad: leave malformed rows out and add a line about them to `notes`, instead of raising.

    Raises:
        TfrecError: a file that cannot be read, a missing column, or a malformed row.
    """
    problems: list[tuple[int, str]] = []
    try:
        table = _fast(path, layout, numbers) if set(layout.columns.values()) <= set(numbers) else None
        if table is None:
            table, problems = _careful(path, layout, numbers)
    except FileNotFoundError:
        raise TfrecError(f"{path}: there is no such file. Is the path right, and the data set complete?") from None
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise TfrecError(f"{path.name}: cannot be read ({' '.join(str(error).split())}). Is it broken? Get it again.") from None
    if problems:
        _refuse(path.name, len(problems), "row {:,}{}".format(*problems[0]), skip_bad, notes)
    if table.empty:
        raise TfrecError(f"{path.name}: the file holds no rows. Is it the right one, and complete?")
    return table


def without(table: pd.DataFrame, bad: pd.Series, column: str, complaint: str, file: str, skip_bad: bool, notes: list[str]) -> pd.DataFrame:
    """The table of `file` without its `bad` rows (a mask), if they may be skipped.

    Raises:
        TfrecError: there are bad rows, and they may not.
    """
    if bad.any():
        row = table.index[bad][0]
        _refuse(file, int(bad.sum()), f"row {row:,}, column {column}: {table[column][row]} {complaint}.", skip_bad, notes)
    return table[~bad]


def _refuse(file: str, count: int, first: str, skip_bad: bool, notes: list[str]) -> None:
    """Raise about bad rows, or note that they are skipped."""
    if not skip_bad:
        raise TfrecError(f"{file}, {first} Mend the file, or skip such rows with --on_bad_rows=skip.")
    notes.append(f"{file}: skipped {count:,} row{'s' if count > 1 else ''}; the first: {first}")


def _fast(path: Location, layout: Layout, numbers: dict[str, type]) -> pd.DataFrame | None:
    """The table of a well-formed file that holds nothing but numbers, else None."""
    # The C parser takes separators of one character. Between numbers "::" is ":" with an empty column in the middle.
    parts = [theirs + ":" * i for theirs in layout.columns for i in range(len(layout.separator))]
    names = parts[: len(parts) + 1 - len(layout.separator)]
    try:
        with warnings.catch_warnings(), path.open("rb") as file:
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row that is too long
            table = pd.read_csv(
                file,  # type: ignore[arg-type]
                sep=layout.separator[0],
                header=0 if layout.header else None,
                names=None if layout.header else names,
                dtype={theirs: float for theirs, ours in layout.columns.items() if numbers[ours] is float},
                encoding=layout.encoding,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                low_memory=False,
            )
        between = table[[name for name in names if name not in layout.columns]]
        table = table[list(layout.columns)].rename(columns=layout.columns)
    except (ValueError, KeyError, OverflowError, pd.errors.ParserWarning):
        return None
    if any(table[name].dtype != np.int64 for name, kind in numbers.items() if kind is int) or not between.isna().all(axis=None):
        return None
    if not (table.abs() <= _LARGEST).all(axis=None):  # missing and infinite ones among them
        return None
    table = table.astype({name: np.float32 for name, kind in numbers.items() if kind is float})
    table.index = pd.RangeIndex(1 + layout.header, 1 + layout.header + len(table), name="row")
    return table


def _careful(path: Location, layout: Layout, numbers: dict[str, type]) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """The table of the good rows, and the bad ones as (row, complaint). Blank lines are neither, but are counted as rows."""
    rows = _rows(path, layout)
    names = next(rows, (1, []))[1] if layout.header else list(layout.columns)
    _check_header(path.name, names, layout)
    columns = [(names.index(theirs), ours, numbers.get(ours, str)) for theirs, ours in layout.columns.items() if ours]
    values: list[Any] = [{int: array("q"), float: array("d"), str: []}[kind] for _, _, kind in columns]
    index, problems = array("q"), []
    for row, fields in rows:
        if len(fields) < 2 and not "".join(fields).strip():
            continue
        try:
            if len(fields) != len(names):
                raise ValueError(f": expected {len(names)} fields, found {len(fields)}.{_hint(fields, names, layout)}")
            parsed = [_parsed(fields[at], kind, ours, layout) for at, ours, kind in columns]
        except ValueError as error:
            problems.append((row, str(error)))
            continue
        index.append(row)
        for column, value in zip(values, parsed):
            column.append(value)
    table = pd.DataFrame({ours: column for (_, ours, _), column in zip(columns, values)}, index=pd.Index(index, name="row", dtype=np.int64))
    kinds = {int: np.int64, float: np.float32, str: object}
    return table.astype({ours: kinds[kind] for _, ours, kind in columns}), problems


def _rows(path: Location, layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """(row, its fields)."""
    with path.open("r", encoding=layout.encoding, errors="surrogateescape", newline="") as file:
        row = 0
        if layout.separator != ",":
            yield from ((row, line.rstrip("\r\n").split(layout.separator)) for row, line in enumerate(file, 1))
            return
        try:
            for row, fields in enumerate(csv.reader(file, strict=True), 1):
                yield row, fields
        except csv.Error as error:
            raise TfrecError(f"{path.name}, row {row + 1:,}: {error}. Is a quotation mark missing, or one too many?") from None


def _check_header(file: str, names: list[str], layout: Layout) -> None:
    if not names:
        raise TfrecError(f"{file}, row 1: the file, or its first row, is empty. Is it the right file, and complete?")
    if _UNDECODED.search("".join(names)):
        raise TfrecError(f"{file}, row 1: {_undecodable(layout)}")
    for theirs in layout.columns:
        if theirs not in names:
            raise TfrecError(f"{file}, row 1: no column {theirs} among {_quoted(', '.join(names))}.{nearest(theirs, names)}")


def _parsed(text: str, kind: type, column: str, layout: Layout) -> int | float | str:
    """The value of a field; a ValueError says what is wrong with it."""
    if not text.isascii() and _UNDECODED.search(text):
        raise ValueError(f", column {column}: {_undecodable(layout)}")
    if kind is str:
        return text
    if kind is int and _WHOLE.fullmatch(text):
        return int(text)
    value = float(text) if _NUMBER.fullmatch(text) else np.inf
    if kind is float and abs(value) <= _LARGEST:
        return value
    if kind is int and abs(value) <= 2**53 and value.is_integer():  # 5.0
        return int(value)
    if not text.strip():
        raise ValueError(f", column {column}: the value is missing.")
    hint = " Is the decimal separator a comma? Write a point." if text.count(",") == 1 else ""
    raise ValueError(f", column {column}: {_quoted(text)} is not a {'whole ' if kind is int else ''}number.{hint}")


def _undecodable(layout: Layout) -> str:
    return f"bytes that are not {layout.encoding.removesuffix('-sig')}. Save the file in that encoding."


def _hint(fields: list[str], names: list[str], layout: Layout) -> str:
    comma = layout.separator == "," and len(fields) > len(names)
    return " Is the decimal separator a comma, or a text with a comma not in quotation marks?" if comma else ""


def _quoted(text: str) -> str:
    """In one line, and not endless."""
    text = " ".join(text.split())
    return f'"{text[:100]}{"..." if len(text) > 100 else ""}"'
