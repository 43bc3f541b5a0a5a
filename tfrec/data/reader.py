"""One file -> one checked table; a malformed row is an error that names file, row and the file's
own column.

`read_careful` reads row by row in plain Python and says what a good row is. `_fast` is pandas' C
parser for the large files, which hold nothing but ids and numbers; it gives up on anything odd, and
then `read_careful` reads the file.
"""

import csv
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import numpy as np
import pandas as pd

from tfrec.data import parquet
from tfrec.data.careful import check_header, read_careful, rows, short
from tfrec.data.layout import FileChunk, Kind, Layout, Location, is_parquet, open_bytes, readable
from tfrec.data.tables import as_ids
from tfrec.errors import TfrecError

PIECE = 2**24  # bytes of a text file that are read together
PIECE_ROWS = 2**20  # of a Parquet file


@dataclass(frozen=True)
class File:
    """A file, how it is written, and what to do with malformed rows: raise, or skip them with a
    line in `notes`.

    noted: {what a line of the notes tells: (its place there, how many rows it is about, its end)}.
    """

    path: Location
    layout: Layout
    skip_bad: bool
    notes: list[str]
    noted: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Returns the name of the file, for errors."""
        return self.path.name

    def without(
        self, table: pd.DataFrame, bad: pd.Series, column: str, complaint: str
    ) -> pd.DataFrame:
        """Returns the table of this file without its `bad` rows (a mask), if they may be skipped.

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
        hint = next(
            (
                f" Is it in {unit}? Divide by {size:,}."
                for size, unit in units.items()
                if worst / size < 2**33
            ),
            "",
        )
        return self.without(table, late, "timestamp", f"is not a time in seconds since 1970.{hint}")

    def refuse(self, count: int, first: str) -> None:
        """Raise about bad rows, or note that they are skipped."""
        if not self.skip_bad:
            raise TfrecError(
                f"{self.name}, {first} Mend the file, or skip such rows with --on_bad_rows=skip."
            )
        self.note("skipped", count, f"row{{}}; the first: {first}")

    def note(self, what: str, count: int, end: str) -> None:
        """A line about `count` rows, all pieces of the file together.

        The end is that of its first piece, {} there an s for several.
        """
        at, before, end = self.noted.get(what, (len(self.notes), 0, end))
        count += before
        self.noted[what] = at, count, end
        self.notes[at : at + 1] = [
            f"{self.name}: {what} {count:,} {end.replace('{}', 's' if count > 1 else '', 1)}"
        ]


def read_file(file: File, kinds: dict[str, Kind]) -> pd.DataFrame:
    """Returns the file's table, its columns under our names, indexed by the row's number in the
    file (the first row is 1).

    kinds: {column: kind}, "text" where not named. Numbers are finite. Ids of a text file are int64
    where all of them are whole numbers.

    Raises:
        TfrecError: a file that cannot be read, a missing column, or a malformed row.
    """
    with readable(file.path):
        table, texts = _read(file, kinds, 0)
    for ours in set(table) - texts:
        if kinds.get(ours) == "id" and table[ours].dtype != np.int64:
            table[ours] = as_ids(table[ours])
    if table.empty:
        raise TfrecError(f"{file.name}: the file holds no rows. Is it the right one, and complete?")
    return table


def read_pieces(
    file: File, kinds: dict[str, Kind], size: int = PIECE, rows: int = PIECE_ROWS
) -> Iterator[tuple[pd.DataFrame, set[str]]]:
    """As read_file, one piece of the file after the other, so that it need not fit into memory; ids
    stay as the file has them.

    Each is given with the columns that the file itself calls text. size: bytes of a piece of a text
    file; a piece without a line's end is longer. rows: those of a piece of a Parquet file.
    """
    empty = True
    with readable(file.path):
        for before, piece in _pieces(file.path, file.layout, size, rows):
            table, texts = _read(replace(file, path=piece), kinds, before)
            empty = empty and table.empty
            yield table, texts
    if empty:
        raise TfrecError(f"{file.name}: the file holds no rows. Is it the right one, and complete?")


def _pieces(
    path: Location, layout: Layout, size: int, rows_at_once: int
) -> Iterator[tuple[int, FileChunk]]:
    """(rows of the file before it, a piece of the file)."""
    quoted = layout.quoted and len(layout.separator) == 1

    def lines(file: BinaryIO, size: int) -> bytes:
        """About so many bytes, to the end of a row.

        No line ends a row while a quotation mark is open.
        """
        found = [file.read(size) + file.readline()]
        marks = found[0].count(b'"')
        while quoted and marks % 2 and (line := file.readline()):
            found.append(line)
            marks += line.count(b'"')
        return b"".join(found)

    with open_bytes(path) as file:
        if is_parquet(path):
            yield from (
                (before, FileChunk(path.name, content))
                for before, content in parquet.pieces(file, list(layout.columns), rows_at_once)
            )
            return
        head = lines(file, 0) if layout.header else b""
        before, content = 0, lines(file, size)
        while True:
            piece = FileChunk(path.name, head + content)
            yield before, piece
            if quoted and b'"' in content:  # a row may have several lines
                before += sum(1 for _ in rows(piece, layout)) - layout.header
            else:
                before += content.count(b"\n") + content.count(b"\r") - content.count(b"\r\n")
            content = lines(file, size)
            if not content:
                return


def _read(file: File, kinds: dict[str, Kind], before: int) -> tuple[pd.DataFrame, set[str]]:
    """Returns the good rows of the file, or of a piece of it with so many rows `before` it.

    And which columns a Parquet file itself calls text.
    """
    problems: list[tuple[int, str]] = []
    quick = {kinds.get(ours, "text") for ours in file.layout.columns.values() if ours} <= {
        "whole",
        "number",
        "id",
    }
    table = _fast(file.path, file.layout, kinds, before) if quick else None
    if table is None:
        table, problems = read_careful(file.path, file.layout, kinds, before)
    typed = _text_columns(file.path)
    if problems:
        file.refuse(len(problems), "row {:,}{}".format(*problems[0]))
    return table, {ours for ours in table if file.layout.theirs(ours) in typed}


def header(file: File) -> list[str]:
    """Returns the names in the first row of a text file, or of the columns of a Parquet file.

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
    """Returns the columns that a Parquet file itself calls text."""
    if not is_parquet(path):
        return []
    with open_bytes(path) as file:
        return parquet.text_names(file)


def _fast(
    path: Location, layout: Layout, kinds: dict[str, Kind], before: int = 0
) -> pd.DataFrame | None:
    """Returns the table of a well-formed file that holds nothing but ids and numbers, else None."""
    try:
        if not is_parquet(path) and _holds_nul(path):  # pandas' parser would end the field there
            return None
        with open_bytes(path) as file:
            found = (
                parquet.frame(file, list(layout.columns))
                if is_parquet(path)
                else _parsed_by_pandas(file, layout, kinds)
            )
        table = (
            found[list(layout.columns)].rename(columns=layout.columns)
            if found is not None
            else None
        )
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
    first = before + 1 + (layout.header and not is_parquet(path))
    return pd.DataFrame(columns, index=pd.RangeIndex(first, first + len(table), name="row"))


def _holds_nul(path: Location) -> bool:
    with open_bytes(path) as file:
        return any(b"\0" in piece for piece in iter(lambda: file.read(PIECE), b""))


def _parsed_by_pandas(
    file: BinaryIO, layout: Layout, kinds: dict[str, Kind]
) -> pd.DataFrame | None:
    # The C parser takes separators of one character. Between numbers "::" is ":" with an empty
    # column in the middle.
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
            dtype={
                theirs: {"number": float, "id": str}[kind]
                for theirs, kind in of_kind.items()
                if kind in ("number", "id")
            },
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
    if not all(texts) or any('"' in text or "\0" in text for text in texts):
        return None
    return np.array(texts, dtype=object)[codes]
