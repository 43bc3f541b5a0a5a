"""One file -> one checked table; a malformed row is an error that names file, row and the file's own column.

`read_careful` reads row by row in plain Python and says what a good row is. `_fast` is pandas' C parser for the large files, which
hold nothing but ids and numbers; it gives up on anything odd, and then `read_careful` reads the file.
"""

import csv
import warnings
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import pandas as pd

from tfrec.data import parquet
from tfrec.data.careful import check_header, read_careful, rows, short
from tfrec.data.layout import Kind, Layout, Location, is_parquet, open_bytes, readable
from tfrec.data.tables import as_ids
from tfrec.errors import TfrecError


@dataclass(frozen=True)
class File:
    """A file, how it is written, and what to do with malformed rows: raise, or skip them with a line in `notes`."""

    path: Location
    layout: Layout
    skip_bad: bool
    notes: list[str]

    @property
    def name(self) -> str:
        return self.path.name

    def without(self, table: pd.DataFrame, bad: pd.Series, column: str, complaint: str) -> pd.DataFrame:
        """The table of this file without its `bad` rows (a mask), if they may be skipped.

        Raises:
            TfrecError: there are bad rows, and they may not.
        """
        if bad.any():
            row = table.index[bad][0]
            value = f"column {self.layout.theirs(column)}: {short(str(table[column][row]))}"
            self.refuse(int(bad.sum()), f"row {row:,}, {value} {complaint}")
        return table[~bad]

    def check_times(self, table: pd.DataFrame) -> pd.DataFrame:
        """Without rows whose timestamp is no time in seconds."""
        late = table["timestamp"].abs() >= 2**33  # the year 2242
        if not late.any():
            return table
        worst = abs(int(table["timestamp"][late].iloc[0]))
        units = {1000: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
        hint = next((f" Is it in {unit}? Divide by {size:,}." for size, unit in units.items() if worst / size < 2**33), "")
        return self.without(table, late, "timestamp", f"is not a time in seconds since 1970.{hint}")

    def refuse(self, count: int, first: str) -> None:
        """Raise about bad rows, or note that they are skipped."""
        if not self.skip_bad:
            raise TfrecError(f"{self.name}, {first} Mend the file, or skip such rows with --on_bad_rows=skip.")
        self.notes.append(f"{self.name}: skipped {count:,} row{'s' if count > 1 else ''}; the first: {first}")


def read_file(file: File, kinds: dict[str, Kind]) -> pd.DataFrame:
    """The file's table, its columns under our names, indexed by the row's number in the file (the first row is 1).

    kinds: {column: kind}, "text" where not named. Numbers are finite. Ids of a text file are int64 where all of them are whole numbers.

    Raises:
        TfrecError: a file that cannot be read, a missing column, or a malformed row.
    """
    problems: list[tuple[int, str]] = []
    with readable(file.path):
        quick = {kinds.get(ours, "text") for ours in file.layout.columns.values() if ours} <= {"whole", "number", "id"}
        table = _fast(file.path, file.layout, kinds) if quick else None
        if table is None:
            table, problems = read_careful(file.path, file.layout, kinds)
        typed = _text_columns(file.path)
    for ours in table:
        if kinds.get(ours) == "id" and table[ours].dtype != np.int64 and file.layout.theirs(ours) not in typed:
            table[ours] = as_ids(table[ours])
    if problems:
        file.refuse(len(problems), "row {:,}{}".format(*problems[0]))
    if table.empty:
        raise TfrecError(f"{file.name}: the file holds no rows. Is it the right one, and complete?")
    return table


def header(file: File) -> list[str]:
    """The names in the first row of a text file, or of the columns of a Parquet file.

    Raises:
        TfrecError: a file that cannot be read, or without header.
    """
    with readable(file.path), open_bytes(file.path) as binary:
        if is_parquet(file.path):
            return parquet.names(binary)
        names = next(rows(file.path, file.layout), (1, []))[1]
        check_header(file.name, names, Layout(file.name, {}, file.layout.separator))
        return names


def _text_columns(path: Location) -> list[str]:
    """The columns that a Parquet file itself calls text."""
    if not is_parquet(path):
        return []
    with open_bytes(path) as file:
        return parquet.text_names(file)


def _fast(path: Location, layout: Layout, kinds: dict[str, Kind]) -> pd.DataFrame | None:
    """The table of a well-formed file that holds nothing but ids and numbers, else None."""
    try:
        with open_bytes(path) as file:
            found = parquet.frame(file, list(layout.columns)) if is_parquet(path) else _parsed_by_pandas(file, layout, kinds)
        table = found[list(layout.columns)].rename(columns=layout.columns) if found is not None else None
    except (ValueError, KeyError, OverflowError, pd.errors.ParserWarning):
        return None
    if table is None:
        return None
    columns = {}
    for ours in filter(None, layout.columns.values()):
        kind = kinds[ours]
        column = _fast_ids(table[ours]) if kind == "id" else parquet.numbers(table[ours], kind)
        if column is None:
            return None
        columns[ours] = column
    first = 1 + (layout.header and not is_parquet(path))
    return pd.DataFrame(columns, index=pd.RangeIndex(first, first + len(table), name="row"))


def _parsed_by_pandas(file: BinaryIO, layout: Layout, kinds: dict[str, Kind]) -> pd.DataFrame | None:
    # The C parser takes separators of one character. Between numbers "::" is ":" with an empty column in the middle.
    parts = [theirs + ":" * i for theirs in layout.columns for i in range(len(layout.separator))]
    names = parts[: len(parts) + 1 - len(layout.separator)]
    of_kind = {theirs: kinds.get(ours) for theirs, ours in layout.columns.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row that is too long
        table = pd.read_csv(
            file,
            sep=layout.separator[0],
            header=0 if layout.header else None,
            names=None if layout.header else names,
            dtype={theirs: {"number": float, "id": str}[kind] for theirs, kind in of_kind.items() if kind in ("number", "id")},
            encoding=layout.encoding,
            index_col=False,
            keep_default_na=False,
            na_values={name: [""] for name in names if of_kind.get(name) != "id"},
            skip_blank_lines=False,
            low_memory=False,
            quoting=csv.QUOTE_NONE,  # a field in quotation marks is for the careful reader
        )
    between = table[[name for name in names if name not in layout.columns]]
    return table if between.isna().all(axis=None) else None


def _fast_ids(values: pd.Series) -> np.ndarray | None:
    if pd.api.types.is_integer_dtype(values.dtype):
        return values.to_numpy(np.int64)
    if not isinstance(values.dtype, pd.StringDtype) or values.isna().any():
        return None
    codes, unique = pd.factorize(values)
    texts = [text.strip() for text in unique]
    if not all(texts) or any('"' in text for text in texts):
        return None
    return np.array(texts, dtype=object)[codes]
