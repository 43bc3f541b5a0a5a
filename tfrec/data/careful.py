"""A file row by row, in plain Python: what a good row is, and what is wrong with the others."""

import csv
import io
import re
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from tfrec.data import parquet
from tfrec.data.layout import Kind, Layout, Location, is_parquet, open_bytes
from tfrec.errors import TfrecError, nearest
from tfrec.system.text import shown

_WHOLE = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*", re.ASCII | re.IGNORECASE)
_NOTHING = ("", "na", "nan", "n/a", "null", "none")
_LARGEST = float(np.finfo(np.float32).max)
_UNDECODED = re.compile(
    "[\udc80-\udcff]"
)  # what errors="surrogateescape" makes of bytes that are not in the encoding
_SEPARATORS = {",": ",", ";": ";", "\t": "tab", "|": "|"}
_TYPES = {
    "whole": np.int64,
    "number": np.float32,
    "number or nothing": np.float32,
    "id": object,
    "text": object,
}


def read_careful(
    path: Location, layout: Layout, kinds: dict[str, Kind], before: int = 0
) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """Returns the table of the good rows, and the bad ones as (row, complaint). Blank lines are
    neither, but are counted as rows.

    before: how many rows of the file stand before those at `path`, which is a piece of it.
    """
    lines = rows(path, layout, before)
    names = next(lines, (1, []))[1] if layout.header else list(layout.columns)
    check_header(path.name, names, layout)
    columns = [
        (names.index(theirs), ours, kinds.get(ours, "text"))
        for theirs, ours in layout.columns.items()
        if ours
    ]
    values: list[Any] = [
        {"whole": array("q"), "number": array("d")}.get(kind, []) for _, _, kind in columns
    ]
    index, problems = array("q"), []
    for row, fields in lines:
        if len(fields) < 2 and not "".join(map(str, fields)).strip():
            continue
        try:
            if len(fields) != len(names):
                raise ValueError(
                    f": expected {len(names)} fields, found "
                    f"{len(fields)}.{_hint(fields, names, layout)}"
                )
            parsed = [_parsed(fields[at], kind, ours, layout) for at, ours, kind in columns]
        except ValueError as error:
            problems.append((row, str(error)))
            continue
        index.append(row)
        for column, value in zip(values, parsed):
            column.append(value)
    series = {
        ours: pd.Series(column, dtype=_TYPES[kind])
        for (_, ours, kind), column in zip(columns, values)
    }
    return pd.DataFrame(series).set_axis(pd.Index(index, name="row", dtype=np.int64)), problems


def rows(path: Location, layout: Layout, before: int = 0) -> Iterator[tuple[int, list[Any]]]:
    """(row, its fields); rows are counted from before + 1 on."""
    if is_parquet(path):
        with open_bytes(path) as file:
            table = parquet.frame(file, list(layout.columns))
        yield before, list(table.columns)
        yield from ((before + row, fields) for row, fields in parquet.rows(table))
        return
    with io.TextIOWrapper(
        open_bytes(path), layout.encoding, errors="surrogateescape", newline=""
    ) as text:
        row = before
        if not layout.quoted or len(layout.separator) > 1:
            yield from (
                (row, line.rstrip("\r\n").split(layout.separator))
                for row, line in enumerate(text, before + 1)
            )
            return
        try:
            for row, fields in enumerate(
                csv.reader(text, delimiter=layout.separator, strict=True), before + 1
            ):
                yield row, fields
        except csv.Error as error:
            raise TfrecError(
                f"{path.name}, row {row + 1:,}: {error}. Is a quotation mark missing, or one too "
                "many?"
            ) from None


def check_header(file: str, names: list[str], layout: Layout) -> None:
    """Raises TfrecError where the first row of a file cannot be the header that the layout asks
    for.
    """
    if not names:
        raise TfrecError(
            f"{file}, row 1: the file, or its first row, is empty. Is it the right file, and "
            "complete?"
        )
    if _UNDECODED.search("".join(names)):
        raise TfrecError(f"{file}, row 1: {_undecodable(layout)}")
    for theirs in layout.columns:
        if theirs not in names:
            hint = separator_hint(names, layout.separator) or nearest(theirs, names)
            raise TfrecError(
                f"{file}, row 1: no column {theirs} among {quoted(', '.join(names))}.{hint}"
            )


def _parsed(value: Any, kind: Kind, column: str, layout: Layout) -> Any:
    """Returns the value of a field; a ValueError says what is wrong with it."""
    if isinstance(value, list):
        if kind == "text":
            return value
        value = ", ".join(value)
    if not value.isascii() and _UNDECODED.search(value):
        raise ValueError(f", column {layout.theirs(column)}: {_undecodable(layout)}")
    if kind == "text":
        return value
    if kind == "id" and "\0" in value:
        raise ValueError(
            f", column {layout.theirs(column)}: {quoted(value)} holds a NUL, which no id may."
        )
    if kind == "id" and value.strip():
        return value.strip()
    if kind == "number or nothing" and value.strip().lower() in _NOTHING:
        return np.nan
    if kind == "whole" and _WHOLE.fullmatch(value):
        return int(value)
    number = float(value) if _NUMBER.fullmatch(value) else np.inf
    if kind.startswith("number") and abs(number) <= _LARGEST:
        return number
    if kind == "whole" and abs(number) <= 2**53 and number.is_integer():  # 5.0
        return int(number)
    if not value.strip():
        raise ValueError(f", column {layout.theirs(column)}: the value is missing.")
    hint = " Is the decimal separator a comma? Write a point." if value.count(",") == 1 else ""
    hint = " Times are seconds since 1970." if column == "timestamp" else hint
    kinds = "a whole number" if kind == "whole" else "a number"
    raise ValueError(f", column {layout.theirs(column)}: {quoted(value)} is not {kinds}.{hint}")


def _undecodable(layout: Layout) -> str:
    return (
        f"bytes that are not {layout.encoding.removesuffix('-sig')}. Save the file in that "
        "encoding."
    )


def _hint(fields: list[str], names: list[str], layout: Layout) -> str:
    if len(fields) < len(names):
        return separator_hint(fields, layout.separator)
    comma = layout.separator == ","
    return (
        " Is the decimal separator a comma, or a text with a comma not in quotation marks?"
        if comma
        else ""
    )


def quoted(text: str) -> str:
    """In one line, and not endless."""
    return f'"{short(text)}"'


def short(text: str) -> str:
    """Returns the beginning of a text, on one line, for an error."""
    text = shown(" ".join(text.split()))
    return f"{text[:100]}{'...' if len(text) > 100 else ''}"


def separator_hint(fields: list[str], separator: str) -> str:
    """Returns a question, where another separator would cut the first row into more fields."""
    text = separator.join(fields)
    counts = {
        other: text.count(other)
        for other in _SEPARATORS
        if other != separator and text.count(other) >= len(fields)
    }
    if not counts:
        return ""
    name = _SEPARATORS[max(counts, key=lambda other: counts[other])]
    return (
        f" Is the separator {'a tab' if name == 'tab' else f'{chr(34)}{name}{chr(34)}'}? "
        f'(--separator="{name}")'
    )
