"""One text file -> one checked table. pandas reads; a malformed row is an error that names file, row and column."""

import re
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec.errors import TfrecError, nearest

Location = Path | zipfile.Path


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
    table, problems = _parse(path, layout, numbers, skip_bad)
    table.index = pd.RangeIndex(1 + layout.header, 1 + layout.header + len(table), name="row")
    table = table[~table.isna().all(axis=1)]  # blank lines, kept until here so that the rows keep their numbers
    if table.empty:
        raise TfrecError(f"{path.name}: the file holds no rows.")
    bad = np.zeros(len(table), bool)
    for column, kind in numbers.items():
        values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
        wrong = ~np.isfinite(values)
        if kind is int:
            wrong |= np.where(wrong, 0, values) != np.floor(np.where(wrong, 0, values))
        if wrong.any():
            at = int(np.argmax(wrong))
            problems.append((int(table.index[at]), f"row {table.index[at]:,}, column {column}: {_complaint(table[column].iloc[at], kind)}"))
        bad |= wrong
        table = table.assign(**{column: np.where(wrong, 0, values).astype(np.int64 if kind is int else np.float32)})
    if problems and not skip_bad:
        raise TfrecError(f"{path.name}, {min(problems)[1]} Mend the file, or skip such rows with --on_bad_rows=skip.")
    if problems:
        lost = int(bad.sum()) + sum(text.startswith("line") for _, text in problems)
        notes.append(f"{path.name}: skipped {lost:,} malformed row{'s' if lost > 1 else ''}; the first: {min(problems)[1]}")
    strings = [column for column in table if column not in numbers]
    return table[~bad].assign(**{column: table.loc[~bad, column].fillna("") for column in strings})


def _parse(path: Location, layout: Layout, numbers: dict[str, type], skip_bad: bool) -> tuple[pd.DataFrame, list[tuple[int, str]]]:
    """The raw table and its lines with too many fields as (row, complaint)."""
    ours = {theirs: name for theirs, name in layout.columns.items() if name}
    double = layout.separator == "::"
    # pandas' fast parser takes separators of one character. Between numbers "::" is ":" with an empty column in the middle.
    fast = double and all(name in numbers for name in ours.values())
    names = [part for theirs in layout.columns for part in ([theirs, f"{theirs}:"] if fast else [theirs])][: -1 if fast else None]
    try:
        with warnings.catch_warnings(record=True) as caught, path.open("rb") as file:
            warnings.simplefilter("always", pd.errors.ParserWarning)
            table = pd.read_csv(
                file,  # type: ignore[arg-type]
                sep=layout.separator[:1] if fast else layout.separator,
                engine="python" if double and not fast else "c",
                header=0 if layout.header else None,
                names=None if layout.header else names,
                dtype={theirs: str for theirs, name in ours.items() if name not in numbers},
                encoding=layout.encoding,
                quoting=0 if layout.separator == "," else 3,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                on_bad_lines="warn" if skip_bad else "error",
                **({} if double and not fast else {"low_memory": False}),  # type: ignore[arg-type]
            )
    except FileNotFoundError:
        raise TfrecError(f"{path}: there is no such file.") from None
    except pd.errors.EmptyDataError:
        raise TfrecError(f"{path.name}: the file is empty.") from None
    except UnicodeDecodeError as error:
        raise TfrecError(f"{path.name}: byte {error.start:,} is not {layout.encoding}. Save the file as {layout.encoding}.") from None
    except (pd.errors.ParserError, OSError, zipfile.BadZipFile, EOFError) as error:
        raise TfrecError(f"{path.name}: {_in_one_line(error)}") from None
    for theirs in ours:
        if theirs not in table:
            known = ", ".join(str(name) for name in table.columns)
            raise TfrecError(f"{path.name}, row 1: no column {theirs} among {known}.{nearest(theirs, map(str, table.columns))}")
    lines = [match for warning in caught for match in re.findall(r"[Ll]ine (\d+): (.*)", str(warning.message))]
    return table[list(ours)].rename(columns=ours), [(int(row), f"line {row}: {text}.") for row, text in lines]


def _complaint(value: object, kind: type) -> str:
    if pd.isna(value):  # type: ignore[call-overload]
        return "the value is missing."
    comma = isinstance(value, str) and value.count(",") == 1
    return f'"{value}" is not a {"whole " if kind is int else ""}number.{" Is the decimal separator a comma?" if comma else ""}'


def _in_one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return re.sub(r".*Expected (\d+) fields in line (\d+), saw (\d+).*", r"row \2: expected \1 fields, found \3.", text)
