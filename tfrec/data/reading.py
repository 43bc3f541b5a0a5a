"""A file -> a table of DuckDB with typed columns; a malformed row is told with file, row, column.

SQL finds the malformed rows: their values are NULL. Python looks at the first of them once more,
and says what is wrong with it.
"""

import collections
import contextlib
import functools
import itertools
import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import pandas as pd

from tfrec.data.forms import (
    File,
    as_text,
    form_of,
    is_pattern,
    literal,
    quoted,
    readable,
    separator_hint,
    short,
)
from tfrec.errors import TfrecError, nearest
from tfrec.system.machine import cores, free_memory

Kind = Literal["id", "whole", "number", "number or nothing", "time", "text", "items"]

LATEST = 2**33  # seconds, the year 2242
EARLY = 10**8  # seconds: what ends before it, in 1973, is rather a number or a date in digits
UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
NOTHING = ("", "na", "nan", "n/a", "null", "none")
BLANKS = literal(" \t\r\n\u00a0")
LARGEST = 3.4028234663852886e38  # of float32
NUMBERS = ("TINYINT", "INTEGER", "FLOAT", "DOUBLE")  # and what ends so, or begins with DECIMAL

TYPES = {"whole": np.int64, "time": np.int64, "number": np.float32, "number or nothing": np.float32}

_number = itertools.count()


def database(folder: Path | None = None, memory: str = "") -> duckdb.DuckDBPyConnection:
    """Returns a connection to a data base in which files are read.

    Args:
        folder: Where its tables lie; None, or of a name that DuckDB cannot take: in memory.
        memory: How much it may take, such as 2GB, before it writes to disk; empty: a share of the
            machine's.
    """
    if folder is None or is_pattern(folder):
        con = _in_memory().cursor()
    else:
        memory = memory or _share()
        con = duckdb.connect(str(folder / "rows.duckdb"), config={"threads": cores()})
        con.execute("SET force_compression = 'uncompressed'")  # it is written and read once
    con.execute(
        "SET TimeZone = 'UTC';"
        "SET enable_progress_bar = true; SET enable_progress_bar_print = false"  # for `watched`
    )
    if memory:  # of all connections in memory together
        con.execute(f"SET memory_limit = {literal(memory)}")
    return con


def drop_table(con: duckdb.DuckDBPyConnection, table: str) -> None:
    """Removes a table, if there still is one."""
    with contextlib.suppress(duckdb.ConnectionException):  # it went with its connection
        con.execute(f"DROP TABLE IF EXISTS {table}")


def _share() -> str:
    """Returns a 64th of the memory that is free; DuckDB needs about 90 MiB a core to read text."""
    return f"{max(free_memory() >> 26, 160 * cores())}MiB"


@functools.cache  # to open one takes longer than to read a small file
def _in_memory() -> duckdb.DuckDBPyConnection:
    spilled = Path(tempfile.gettempdir()) / f"tfrec-{os.getpid()}"  # else in the working folder
    con = duckdb.connect(config={"threads": cores(), "temp_directory": str(spilled)})
    con.execute(f"SET memory_limit = {literal(_share())}")
    return con


@contextlib.contextmanager
def enough(memory: str) -> Iterator[None]:
    """Tells in one line that there is not enough memory, or room on the disk, for DuckDB."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise TfrecError(
            f"memory_limit={memory or _share()}: it is too little for these data. Allow more."
        ) from None
    except duckdb.IOException as error:
        raise TfrecError(f"the rows cannot be kept on disk ({short(str(error))}).") from None


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes a frame without its index; lists of texts stay lists."""
    con = database()
    con.execute(f"SET pandas_analyze_sample = {max(len(frame), 1)}")
    con.register("frame", frame)
    con.execute(f"COPY frame TO {literal(str(path))} (FORMAT parquet)")


def read_parquet(path: Path) -> pd.DataFrame:
    """Returns what write_parquet wrote; texts are objects.

    Raises:
        duckdb.Error: The file cannot be read.
    """
    frame = database().execute(f"FROM read_parquet({literal(str(path))})").df()
    for name, values in frame.items():
        if not pd.api.types.is_numeric_dtype(values):
            lists = [each.tolist() if isinstance(each, np.ndarray) else each for each in values]
            frame[name] = pd.Series(lists, dtype=object)
    return frame


class Reading:
    """A table of DuckDB with a row for each row of a file, in its order.

    Attributes:
        table: The name of the table.
        columns: {our name: SQL of its value}; NULL where it is malformed.
        good: SQL, true of rows that are not malformed.
        texts: Columns of ids that the file itself calls texts.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, file: File, kinds: dict[str, Kind]) -> None:
        """Reads a file into a new table.

        Args:
            con: A connection to DuckDB.
            file: The file.
            kinds: {our name: what the column holds}; text where it is not named.

        Raises:
            TfrecError: The file cannot be read, a column is not there, or a row is malformed and
                may not be skipped.
        """
        self.con, self.file, self.kinds = con, file, kinds
        self.table = f"read_{next(_number)}"
        self.drop = weakref.finalize(self, drop_table, con, self.table)
        self.drop.atexit = False
        self.folder = tempfile.TemporaryDirectory()  # it goes with the reading
        with readable(file.path):
            self.form = form_of(file)(con, file, Path(self.folder.name))
            self._check_header()
            # names of our own: the file's may differ in case only, or be called rowid
            self.values = {name: f"v{at}" for at, name in enumerate(file.columns)}
            self.form.load(self.table, self._typed())
            self.texts = self.form.texts()
            self.columns = {name: self._value(name) for name in file.columns}
            wanted = [f"({self.columns[name]}) IS NOT NULL" for name in self._checked()]
            self.good = " AND ".join(wanted or ["true"])
            self._check_rows()

    def __len__(self) -> int:
        """Returns the number of rows, malformed ones included."""
        return self._one(f"SELECT count(*) FROM {self.table}")[0]

    def frame(self) -> pd.DataFrame:
        """Returns the good rows, their index their place in the table."""
        whole = [name for name in self.values if self._kind(name) != "items"]
        columns = "".join(f", {self.columns[name]} AS {self.values[name]}" for name in whole)
        query = f"SELECT rowid{columns} FROM {self.table} WHERE {self.good} ORDER BY rowid"
        found = self.con.execute(query).fetchnumpy()
        index = pd.Index(found.pop("rowid").astype(np.int64), name="row")
        made = {name: _plain(found[self.values[name]], self._kind(name)) for name in whole}
        made |= {name: self._lists(name) for name in self.values if name not in made}
        return pd.DataFrame({name: made[name] for name in self.values}, index=index, copy=False)

    def _lists(self, name: str) -> np.ndarray:
        """Returns the lists of a column, which share their texts."""
        column, good = self.columns[name], f"FROM {self.table} WHERE {self.good} ORDER BY rowid"
        sizes = self._numbers(f"SELECT coalesce(len({column}), 0) {good}")
        made, ends = np.empty(len(sizes), object), np.cumsum(sizes).tolist()
        texts: list[str] = []
        if sizes.any():
            levels = f"{self.table}_{self.values[name]}"
            items = f"SELECT DISTINCT unnest({column}) FROM {self.table} WHERE {self.good}"
            self.con.execute(f"CREATE TYPE {levels} AS ENUM ({items})")
            names = self.con.execute(f"SELECT unnest(enum_range(NULL::{levels}))").fetchall()
            codes = f"list_transform({column}, lambda item: enum_code(CAST(item AS {levels})))"
            level = self._numbers(f"SELECT unnest(codes) FROM (SELECT {codes} AS codes {good})")
            self.con.execute(f"DROP TYPE {levels}")
            texts = np.array([text for (text,) in names], object)[level].tolist()
        made[:] = [texts[begin:end] for begin, end in itertools.pairwise([0, *ends])]
        return made

    def _numbers(self, query: str) -> np.ndarray:
        (values,) = self.con.execute(query).fetchnumpy().values()
        return np.ma.getdata(values)

    def require(self, column: str, condition: str, wrong: str) -> None:
        """Leaves out rows that do not meet a condition, if they may be skipped.

        Args:
            column: The one that the condition is about.
            condition: SQL; `value` is the column's value there.
            wrong: What is said of one that does not meet it.

        Raises:
            TfrecError: There are such rows, and they may not.
        """
        bad = f"NOT ({condition.replace('value', self.columns[column])})"
        where = f"FROM {self.table} WHERE {self.good} AND {bad} ORDER BY rowid LIMIT 1"
        first = self.con.execute(f"SELECT rowid, {self.columns[column]} {where}").fetchone()
        if first:
            place, value = first
            count = self.leave_out(bad)
            value = f"column {self.name_of(column)}: {short(str(value))}"
            self.drop_or_raise(count, f"row {self.row(place):,}, {value} {wrong}")

    def leave_out(self, condition: str) -> int:
        """Leaves out rows that meet a condition (SQL), and returns how many."""
        count = f"SELECT count(*) FROM {self.table} WHERE {self.good} AND {condition}"
        found: int = self._one(count)[0]
        self.good = f"{self.good} AND NOT ({condition})"
        return found

    def without(self, table: pd.DataFrame, bad: Any, column: str, complaint: str) -> pd.DataFrame:
        """Returns rows of `frame` without the bad ones (a mask), if they may be skipped.

        Raises:
            TfrecError: There are bad rows, and they may not.
        """
        bad = np.asarray(bad)
        if bad.any():
            place = table.index[bad][0]
            value = f"column {self.name_of(column)}: {short(str(table[column][place]))}"
            self.drop_or_raise(int(bad.sum()), f"row {self.row(place):,}, {value} {complaint}")
        return table[~bad]

    def distinct(self, value: str) -> set[str]:
        """Returns the different values (SQL) of the good rows."""
        query = f"SELECT DISTINCT {value} FROM {self.table} WHERE {self.good}"
        return {found for (found,) in self.con.execute(query).fetchall()}

    def row(self, place: int) -> int:
        """Returns which row of the file, from 1 on, a row of the table is, from 0 on."""
        return self.form.place(int(place))[0]

    def name_of(self, name: str) -> str:
        """Returns what errors call a column: the file's own name, where it has names."""
        return name if self.file.names else self.file.columns[name]

    def drop_or_raise(self, count: int, first: str, kinds: str = "") -> None:
        """Notes that malformed rows are skipped.

        Args:
            count: How many they are.
            first: What is said of the first.
            kinds: How many of which kind.

        Raises:
            TfrecError: They may not be skipped, or are more than half of all.
        """
        file, every = self.file, len(self) + len(self.form.rejected)
        if not file.skip_bad:
            # a wrong separator is no row's fault
            whole = first.startswith("row 1:") and "(--separator" in first
            mend = "" if whole else " Mend the file, or skip such rows with --on_bad_rows=skip."
            raise TfrecError(f"{file.name}, {first}{mend}")
        if 2 * count > every:
            raise TfrecError(
                f"{file.name}: {count:,} of {every:,} rows are malformed, more than half, so they "
                f"are not skipped. Is it the right file, separator and quoting? The first: {first}"
            )
        file.note("skipped", count, f"row{{}}{kinds}; the first: {first}")

    def _kind(self, name: str) -> Kind:
        return self.kinds.get(name, "text")

    def _check_header(self) -> None:
        names = self.form.names
        for source_name in self.file.columns.values():
            if source_name not in names:
                hint = separator_hint(names, self.file.separator) or nearest(source_name, names)
                raise TfrecError(
                    f"{self.file.name}, row 1: no column {source_name} among "
                    f"{quoted(', '.join(names))}.{hint}"
                )

    def _checked(self) -> list[str]:
        """Returns the columns in which NULL says that the row is malformed."""
        if self.form.lacking_is_null:
            return list(self.file.columns)
        return [name for name in self.file.columns if self._kind(name) not in ("text", "items")]

    def _typed(self) -> str:
        """Returns the SQL that makes our columns of the file's."""
        made: dict[str, str] = {}
        for name, (column, dtype) in self.form.columns().items():
            kind, value = self._kind(name), self.values[name]
            if kind == "time":
                number, date = times(column, dtype, self.file.time_format)
                made |= {value: number, f"{value}_date": date}
            else:
                made[value] = typed(kind, column, dtype, self.file.value_separator)
        return ", ".join(f"{sql} AS {name}" for name, sql in made.items())

    def _value(self, name: str) -> str:
        return self._seconds(name) if self._kind(name) == "time" else self.values[name]

    def _seconds(self, name: str) -> str:
        """Returns the SQL of seconds since 1970, whatever the times of the file are."""
        number, date = self.values[name], f"{self.values[name]}_date"
        within = [f"count(*) FILTER (abs({number}) < {LATEST * unit})" for unit in UNITS]
        counts = ", ".join([f"max({number})", f"count({number})", f"count({date})", *within])
        latest, numbers, dates, *of_unit = self._one(f"SELECT {counts} FROM {self.table}")
        if dates > numbers:
            return f"CASE WHEN abs({date}) < {LATEST} THEN CAST(floor({date}) AS BIGINT) END"
        unit = next((unit for unit, n in zip(UNITS, of_unit) if 2 * n > numbers), 1)
        if latest is not None and 0 <= latest < EARLY:
            day = np.datetime64(int(latest), "s").astype("datetime64[D]")
            self.file.notes.append(
                f"{self.file.name}: all times are in 1970 or soon after, none later than {day}. "
                "Are they seconds since 1970? --timestamp_format=%Y%m%d reads dates such as "
                "20171102"
            )
        if unit > 1:
            self.file.notes.append(f"{self.file.name}: times are in {UNITS[unit]}")
        seconds = f"CAST(floor({number} / {unit}) AS BIGINT)"
        return f"CASE WHEN abs({number}) < {LATEST * unit} THEN {seconds} END"

    def _check_rows(self) -> None:
        """Tells of malformed rows, or that there are no others."""
        rejected = self.form.rejected
        found = f"count(*), count(*) FILTER ({self.good}), min(rowid) FILTER (NOT ({self.good}))"
        every, good, first = self._one(f"SELECT {found} FROM {self.table}")
        told = dict(sorted(rejected.items())[:1])
        if first is not None:
            row, fields = self.form.place(first)
            told[row] = fields if isinstance(fields, str) else self._complaint(first, fields)
        if told:
            row = min(told)
            count = len(rejected) + every - good
            self.drop_or_raise(count, f"row {row:,}{told[row]}", self._kinds() if count > 1 else "")
        if not good:
            raise TfrecError(
                f"{self.file.name}: the file holds no rows. Is it the right one, and complete?"
            )

    def _kinds(self) -> str:
        """Returns how many rows are malformed in which way."""
        counts = collections.Counter(map(_kind_of, self.form.rejected.values()))
        checked = self._checked()
        for at, name in enumerate(checked):
            wrong = [f"({self.columns[name]}) IS NOT NULL" for name in checked[:at]]
            wrong.append(f"({self.columns[name]}) IS NULL")
            query = f"SELECT count(*) FROM {self.table} WHERE {' AND '.join(wrong)}"
            counts[f"column {self.name_of(name)}"] += self._one(query)[0]
        found = [f"{kind} {count:,}" for kind, count in counts.most_common() if count]
        return f" ({', '.join(found)})"

    def _complaint(self, ordinal: int, fields: dict[str, str]) -> str:
        """Returns what is wrong with a row of the table, whose fields are these."""
        checked = self._checked()
        values = ", ".join(self.columns[name] for name in checked)
        found = self._one(f"SELECT {values} FROM {self.table} WHERE rowid = {ordinal}")
        name = next(name for name, value in zip(checked, found) if value is None)
        return f", column {self.name_of(name)}: {complaint(self._kind(name), fields[name])}"

    def _one(self, query: str) -> tuple:
        (found,) = self.con.execute(query).fetchall()
        return found


def _plain(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Returns values of DuckDB as a plain array; NULL is ""."""
    if kind in TYPES:
        return np.asarray(values).astype(TYPES[kind])
    return np.ma.filled(values, "") if np.ma.isMaskedArray(values) else values


def typed(kind: Kind, column: str, dtype: str, separator: str) -> str:
    """Returns the SQL of a value of that kind, NULL where it is malformed.

    Args:
        column: SQL of the file's column.
        dtype: Its type.
        separator: What stands between the values of a field of several.
    """
    text = as_text(column, dtype)
    if kind == "text":
        return text
    if kind == "items":
        return _items(column, dtype, separator)
    if kind == "id":
        return f"CASE WHEN NOT contains({text}, chr(0)) THEN nullif({_trimmed(text)}, '') END"
    number = _number_of(column, dtype)
    if kind == "whole":
        is_whole = f"abs({number}) <= {2**53} AND {number} = floor({number})"
        return f"CASE WHEN {is_whole} THEN CAST({number} AS BIGINT) END"
    bounded = f"CASE WHEN abs({number}) <= {LARGEST} THEN {number} END"
    if kind == "number or nothing":
        words = ", ".join(map(literal, NOTHING))
        nothing = f"coalesce(lower({_trimmed(text)}), '') IN ({words})"
        return f"CASE WHEN {nothing} THEN 'nan' ELSE {bounded} END"
    return bounded


def times(column: str, dtype: str, time_format: str) -> tuple[str, str]:
    """Returns the SQL of a time as a number and, where it is none, of a date in seconds."""
    none = "CAST(NULL AS DOUBLE)"
    if dtype.startswith("TIMESTAMP") or dtype == "DATE":
        return none, f"epoch({column})"
    text = as_text(column, dtype)
    if time_format:
        return none, f"epoch(try_strptime({text}, {literal(time_format)}))"
    number = _number_of(column, dtype)
    date = f"epoch(try_cast({text} AS TIMESTAMPTZ))"
    return number, f"CASE WHEN {number} IS NULL THEN {date} END"


def _number_of(column: str, dtype: str) -> str:
    """Returns the SQL of a number of double precision; truth values are 1 and 0."""
    if dtype.endswith(NUMBERS) or dtype.startswith("DECIMAL") or dtype.endswith("INT"):
        return f"CAST({column} AS DOUBLE)"
    text = as_text(column, dtype)
    truth = f"CASE lower({text}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"
    return f"coalesce(try_cast(replace({text}, '_', 'x') AS DOUBLE), {truth})"


def _trimmed(text: str) -> str:
    """Returns the SQL of a text without blanks around it; of any kind would take five times as
    long.
    """
    others = " OR ".join(f"contains({text}, chr({ord(each)}))" for each in "\t\r\n\u00a0")
    return f"CASE WHEN {others} THEN trim({text}, {BLANKS}) ELSE trim({text}) END"


def _items(column: str, dtype: str, separator: str) -> str:
    """Returns the SQL of the different values of a field of several, in order."""
    if dtype.endswith("[]"):
        values = f"CAST({column} AS VARCHAR[])"
    else:
        values = f"string_split({as_text(column, dtype)}, {literal(separator)})"
        if dtype == "JSON":
            lists = f"from_json({column}, '[\"VARCHAR\"]')"
            values = f"CASE WHEN json_type({column}) = 'ARRAY' THEN {lists} ELSE {values} END"
    trimmed = f"list_transform({values}, lambda item: trim(item, {BLANKS}))"
    kept = f"list_filter({trimmed}, lambda item: item <> '')"
    return f"list_filter({kept}, lambda item, place: list_position({kept}, item) = place)"


def _kind_of(complaint: str) -> str:
    """Returns in short what a row's complaint is about."""
    if complaint.startswith(", "):
        return complaint[2:].partition(":")[0]
    return "number of fields" if complaint.startswith(": expected") else "quotation mark"


def complaint(kind: Kind, value: str) -> str:
    """Returns what is wrong with a malformed value."""
    if not value.strip():
        return "the value is missing."
    if kind == "id":
        return f"{quoted(value)} holds a NUL, which no id may."
    if kind == "time":
        return _wrong_time(value)
    hint = " Is the decimal separator a comma? Write a point." if value.count(",") == 1 else ""
    return f"{quoted(value)} is not a {'whole ' if kind == 'whole' else ''}number.{hint}"


def _wrong_time(value: str) -> str:
    try:
        number = abs(float(value))
    except ValueError:
        return (
            f"{quoted(value)} is not a time: expected seconds since 1970 or an ISO 8601 date, as "
            "the other rows have it. --timestamp_format=%d.%m.%Y, say, reads others."
        )
    unit = next((unit for unit in UNITS if number < LATEST * unit), 0)
    hint = f" Is it in {UNITS[unit]}? The others are not." if unit else ""
    return f"{quoted(value)} is not a time in seconds since 1970.{hint}"
