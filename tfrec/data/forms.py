"""Files as DuckDB reads them: text with separators, JSON lines, Parquet.

Each form knows its columns, loads them into a table, and finds a row of the table in the file
again.
"""

import codecs
import collections
import contextlib
import csv
import gzip
import io
import itertools
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from tfrec.data.paths import missing
from tfrec.errors import TfrecError
from tfrec.system.progress import watched
from tfrec.system.text import shown

Fields = dict[str, str]  # {our name: what a row has there, as text}
Columns = dict[str, tuple[str, str]]  # {our name: (SQL of the file's column, its type)}

# encodings that DuckDB reads, by Python's names
ENCODINGS = {"utf-8": "utf-8", "utf-8-sig": "utf-8", "utf-16": "utf-16", "iso8859-1": "latin-1"}
SEPARATORS = {",": ",", ";": ";", "\t": "tab", "|": "|", " ": " "}
LACKS = "\x01lacks\x01"  # stands for NULL; else an empty field would be one that lacks
PIECE, BUFFER = 2**20, 2**25  # bytes of a file that are looked at, or read, together
# options of read_csv that make each line a row
LINES = (
    "auto_detect=false, header=false, columns={'line': 'VARCHAR'}, delim='\x01', quote='', "
    f"escape='', max_line_size={BUFFER // 4}, buffer_size={BUFFER}"
)
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
UNDECODED = re.compile("[\udc80-\udcff]")  # bytes that errors="surrogateescape" left as they were
JSON = re.compile(r"\.(json|jsonl|ndjson)(\.gz|\.zst)?$", re.IGNORECASE)


@dataclass(frozen=True)
class File:
    """A file of rows, and how it is written.

    Args:
        path: Where it is.
        columns: {our name: its name in the file} of the columns that are read.
        names: All columns in their order, of a text file without a header.
        separator: What stands between two fields of a text file.
        encoding: Of a text file.
        quoting: How a quotation mark is written within quotation marks: double, or after a
            backslash; none: quotation marks are letters as others.
        time_format: Of times, as strptime has it; empty: what they look like.
        value_separator: What stands between the values of a field of several.
        skip_bad: Malformed rows are left out with a line in `notes`.
    """

    path: Path
    columns: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    separator: str = ","
    encoding: str = "utf-8"
    quoting: str = "double"
    time_format: str = ""
    value_separator: str = "|"
    skip_bad: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Returns the name of the file, for errors."""
        return self.path.name

    def note(self, what: str, count: int, end: str) -> None:
        """Adds a line about `count` rows to the notes; {} in the end is an s for several."""
        end = end.replace("{}", "s" if count > 1 else "", 1)
        self.notes.append(f"{self.name}: {what} {count:,} {end}")


def as_text(column: str, dtype: str) -> str:
    """Returns the SQL of a column of any type as text."""
    if dtype == "TEXT":
        return column
    if dtype == "BLOB":
        return f"try(decode({column}))"
    if dtype == "JSON":
        return f"({column} ->> '$')"
    if dtype.endswith("[]"):
        return f"array_to_string({column}, ', ')"
    return f"CAST({column} AS VARCHAR)"


class Form:
    """What the forms have in common.

    Attributes:
        names: The columns of the file, in its order.
        rejected: {row: complaint} of rows that are not in the table.
    """

    name: ClassVar[str] = ""  # for people
    lacking_is_null = False  # a text is NULL where the row is too short, and only there
    names: list[str]
    source: str  # SQL that reads the file, where it is the same from the start

    def __init__(self, con: duckdb.DuckDBPyConnection, file: File, folder: Path) -> None:
        """folder: of temporary files."""
        self.con, self.file, self.folder = con, file, folder
        self.rejected: dict[int, str] = {}
        self.path = file.path
        if is_pattern(file.path):
            self.path = folder / "file"
            self.path.symlink_to(file.path.absolute())

    def columns(self) -> Columns:
        """Returns the columns that are read."""
        raise NotImplementedError

    def load(self, table: str, select: str) -> None:
        """Makes the table, whose rows are those of the file in its order; select: SQL."""
        with watched(self.con.query_progress, f"reading {self.file.name}"):
            self.con.execute(f"CREATE TABLE {table} AS SELECT {select} FROM {self.source}")

    def texts(self) -> set[str]:
        """Returns those of our columns that the file itself calls texts."""
        return {name for name, (_, dtype) in self.columns().items() if dtype in ("VARCHAR", "BLOB")}

    def place(self, ordinal: int) -> tuple[int, Fields | str]:
        """Returns which row of the file, from 1 on, a row of the table is, from 0 on.

        With it come its fields, or what is wrong with its shape.
        """
        columns = ", ".join(as_text(*column) for column in self.columns().values())
        values = self._found(columns, self.source, ordinal)
        return ordinal + 1, {n: v or "" for n, v in zip(self.file.columns, values)}

    def _found(self, columns: str, source: str, ordinal: int) -> tuple:
        query = f"SELECT {columns} FROM {source} LIMIT 1 OFFSET {ordinal}"
        (found,) = self.con.execute(query).fetchall()
        return found


def literal(text: str) -> str:
    """Returns a text as SQL."""
    return "'{}'".format(text.replace("'", "''"))


def identifier(name: str) -> str:
    """Returns a name as SQL."""
    return '"{}"'.format(name.replace('"', '""'))


class Parquet(Form):
    """A Parquet file."""

    name = "Parquet"

    def __init__(self, con: duckdb.DuckDBPyConnection, file: File, folder: Path) -> None:
        super().__init__(con, file, folder)
        self.source = f"read_parquet({literal(str(self.path))})"
        described = con.execute(f"DESCRIBE SELECT * FROM {self.source}").fetchall()
        self.types = {name: dtype for name, dtype, *_ in described}
        self.names = list(self.types)

    def columns(self) -> Columns:
        found = self.file.columns.items()
        return {
            name: (identifier(source_name), self.types[source_name]) for name, source_name in found
        }


class JsonLines(Form):
    """A file with a JSON object on each line."""

    name = "JSON"

    def __init__(self, con: duckdb.DuckDBPyConnection, file: File, folder: Path) -> None:
        super().__init__(con, file, folder)
        source, options = literal(str(self.path)), "format='newline_delimited', ignore_errors=true"
        described = con.execute(f"DESCRIBE SELECT * FROM read_json({source}, {options})").fetchall()
        self.names = [name for name, *_ in described]
        kinds = ", ".join(f"{identifier(name)}: 'JSON'" for name in self.names)
        self.source = f"read_json({source}, {options}, columns={{{kinds}}})"

    def columns(self) -> Columns:
        return {
            name: (identifier(source_name), "JSON")
            for name, source_name in self.file.columns.items()
        }

    def texts(self) -> set[str]:
        found = set()
        for name, (column, _) in self.columns().items():
            query = f"SELECT 1 FROM {self.source} WHERE json_type({column}) = 'VARCHAR' LIMIT 1"
            if self.con.execute(query).fetchone():
                found.add(name)
        return found


class Text(Form):
    """A text file with separators.

    DuckDB pads rows that lack fields. A row that lacks one that is asked for is malformed then. It
    refuses to do so where a field has several lines, and it cannot tell what an open quotation mark
    swallows: such a file is written anew, row by row, with the number of each row.
    """

    lacking_is_null = True
    numbered = False  # whether it has been written anew

    def __init__(self, con: duckdb.DuckDBPyConnection, file: File, folder: Path) -> None:
        super().__init__(con, file, folder)
        self.encoding = ENCODINGS.get(codecs.lookup(file.encoding).name, "")
        if not self.encoding or _starts(file.path, ZSTD):
            self.path, self.encoding = self._recoded(), "utf-8"
        elif _starts(file.path, GZIP):
            self.path = self._unpacked()
        marked, self.longest = _scanned(self.path)
        self.marked = marked and file.quoting != "none" and len(file.separator) == 1
        self.names = list(file.names)
        self.names = self.names or self._header()

    def columns(self) -> Columns:
        places = {name: at for at, name in enumerate(self.names)}
        found = self.file.columns.items()
        return {name: (f"c{places[source_name]}", "TEXT") for name, source_name in found}

    def load(self, table: str, select: str) -> None:
        if not self._load(table, select):
            self._number_rows()
            self._load(table, select)

    def texts(self) -> set[str]:
        return set()

    def place(self, ordinal: int) -> tuple[int, Fields | str]:
        if self.numbered:
            row, *values = self._found("*", self._source(), ordinal)
            return row, self._fields([text for text in values if text is not None])
        for row, fields in self._rows():
            if isinstance(fields, list) and row not in self.rejected and "".join(fields).strip():
                if not ordinal:
                    return row, self._fields(fields)
                ordinal -= 1
        raise AssertionError("the table has more rows than its file")

    def _header(self) -> list[str]:
        with self._lines() as lines:
            names = self._next_row(lines, collections.deque(), [])
        if isinstance(names, str):
            raise TfrecError(f"{self.file.name}, row 1{names}")
        if not names:
            raise TfrecError(
                f"{self.file.name}, row 1: the file, or its first row, is empty. Is it the right "
                "file, and complete?"
            )
        if UNDECODED.search("".join(names)):
            raise TfrecError(f"{self.file.name}, row 1: {undecodable(self.file.encoding)}")
        return [name.strip() for name in names]

    def _unpacked(self) -> Path:
        """Returns the gzipped file, unpacked: DuckDB does not check its sum."""
        path = self.folder / "unpacked"
        with gzip.open(self.file.path) as packed, path.open("wb") as plain:
            shutil.copyfileobj(packed, plain, 2**20)
        return path

    def _recoded(self) -> Path:
        """Returns the file in UTF-8, unpacked."""
        path = self.folder / "recoded"
        with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as plain:
            if not _starts(self.file.path, ZSTD):
                with self._lines() as lines:
                    plain.writelines(lines)
                return path
            given = f"{literal(str(self.path))}, {LINES}, compression='zstd'"
            found = self.con.execute(f"SELECT line FROM read_csv({given})")
            while rows := found.fetchmany(100_000):
                plain.writelines(f"{line or ''}\n" for (line,) in rows)
        return path

    def _fields(self, fields: list[str]) -> Fields | str:
        """Returns our columns of a row, or what is wrong with its shape."""
        wanted = {name: int(column[1:]) for name, (column, _) in self.columns().items()}
        if len(fields) > len(self.names) or len(fields) <= max(wanted.values()):
            return self._shape(fields)
        for name, at in wanted.items():
            if UNDECODED.search(fields[at]):
                column = name if self.file.names else self.file.columns[name]
                return f", column {column}: {undecodable(self.file.encoding)}"
        return {name: fields[at] for name, at in wanted.items()}

    def _shape(self, fields: list[str]) -> str:
        hint = ""
        if len(fields) < len(self.names):
            hint = separator_hint(fields, self.file.separator)
        elif self.file.separator == ",":
            hint = (
                " Is the decimal separator a comma, or a text with a comma not in quotation marks?"
            )
        return f": expected {len(self.names)} fields, found {len(fields)}.{hint}"

    def _dialect(self) -> dict[str, Any]:
        quoting = self.file.quoting
        if quoting == "none":
            return {"delimiter": self.file.separator, "quoting": csv.QUOTE_NONE}
        escape = {} if quoting == "double" else {"doublequote": False, "escapechar": "\\"}
        return {"delimiter": self.file.separator, "strict": True} | escape

    def _load(self, table: str, select: str) -> bool:
        """Returns False, and makes no table, where Python must number the rows."""
        made = f"CREATE TABLE {table} AS SELECT {select} FROM {self._source()} {self._present()}"
        try:
            with watched(self.con.query_progress, f"reading {self.file.name}"):
                self.con.execute(made)
        except duckdb.Error as error:
            if lacks_room(error):
                raise
            if self.numbered or not self.marked:
                raise OSError(str(error).split("\n")[0]) from None
            return False
        rejects = self.con.execute(
            "SELECT line, any_value(error_type), min(column_name), any_value(csv_line) "
            "FROM reject_errors GROUP BY line"
        ).fetchall()
        self.con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        if self.marked and not self.numbered and not self._is_all(table, rejects):
            self.con.execute(f"DROP TABLE {table}")
            return False
        self.rejected |= {row: self._reject(*more) for row, *more in rejects}
        return True

    def _is_all(self, table: str, rejects: list[tuple]) -> bool:
        """Returns whether each line of the file is a row of the table, or a reject."""
        if any(kind == "UNQUOTED VALUE" for _, kind, *_ in rejects):
            return False
        ((loaded,),) = self.con.execute(f"SELECT count(*) FROM {table}").fetchall()
        with self.path.open("rb") as binary:
            lines = sum(1 for line in binary if line.strip())
        return lines == loaded + len(rejects) + (not self.file.names)

    def _reject(self, kind: str, column: str | None, line: str) -> str:
        if kind == "TOO MANY COLUMNS":
            return self._shape(self._split(line))
        of = self.names[int(column[1:])] if column else ""
        where = f", column {of}" if of else ""
        if kind == "INVALID ENCODING":
            return f"{where}: {undecodable(self.file.encoding)}"
        return f"{where}: it cannot be read ({kind.lower()})."

    def _source(self) -> str:
        """Returns the SQL that reads the file: columns c0, c1, ... of text."""
        types = {f"c{at}": "VARCHAR" for at in range(len(self.names))}
        quote, escape = '"', '"'
        if self.numbered:
            types = {"row": "BIGINT"} | types
        elif self.file.quoting == "backslash":
            escape = "\\"
        elif not self.marked:
            quote = escape = ""
        options = {
            "auto_detect": False,
            "header": False,
            "skip": 0 if self.numbered or self.file.names else 1,
            "columns": types,
            "delim": "," if self.numbered else self.file.separator,
            "quote": quote,
            "escape": escape,
            "nullstr": LACKS,
            "null_padding": not self.numbered,
            "max_line_size": self.longest,
            "buffer_size": max(2 * self.longest, BUFFER),
            "store_rejects": True,
            "encoding": self.encoding,
            "compression": "none",
        }
        given = ", ".join(f"{name}={as_sql(value)}" for name, value in options.items())
        return f"read_csv({literal(str(self.path))}, {given})"

    def _present(self) -> str:
        """Returns the SQL that leaves out blank lines."""
        if self.numbered or len(self.names) < 2:
            return "" if self.numbered else "WHERE trim(c0) <> ''"
        return "WHERE NOT (trim(c0) = '' AND c1 IS NULL)"

    def _number_rows(self) -> None:
        """Writes the file anew: each good row with its number before it."""
        path = self.folder / "rows"
        with path.open("w", encoding="utf-8", errors="replace", newline="") as clean:
            writer = csv.writer(clean, lineterminator="\n")
            for row, fields in self._rows():
                if isinstance(fields, str):
                    self.rejected[row] = fields
                elif isinstance(found := self._fields(fields), str) and "".join(fields).strip():
                    self.rejected[row] = found
                elif "".join(fields).strip():
                    lacking = [LACKS] * (len(self.names) - len(fields))
                    writer.writerow([row, *fields, *lacking])
        self.path, self.encoding, self.numbered = path, "utf-8", True

    def _rows(self) -> Iterator[tuple[int, list[str] | str]]:
        """(row, its fields, or why it has none).

        An open quotation mark costs the line that it stands in, not those that it would swallow.
        """
        with self._lines() as lines:
            waiting: collections.deque[str] = collections.deque()
            for row in itertools.count(1):
                used: list[str] = []
                fields = self._next_row(lines, waiting, used)
                if fields is None:
                    return
                if isinstance(fields, str):
                    waiting.extendleft(reversed(used[1:]))
                if row > 1 or self.file.names:
                    yield row, fields

    def _next_row(
        self, lines: Iterator[str], waiting: collections.deque[str], used: list[str]
    ) -> list[str] | str | None:
        """Returns the fields of the next row, why it has none, or None at the end.

        Args:
            waiting: Lines that come before the others.
            used: Takes up the lines of the row.
        """

        def feed() -> Iterator[str]:
            while (line := waiting.popleft() if waiting else next(lines, None)) is not None:
                used.append(line)
                yield line

        if self.file.quoting == "none" or len(self.file.separator) > 1:
            line = next(feed(), None)
            return None if line is None else self._split(line)
        try:
            fields = next(csv.reader(feed(), **self._dialect()), None)
        except csv.Error:
            return ": is a quotation mark missing, or one too many? (--quoting)"
        alone = {len(self._split(line)) for line in used}
        if len(used) > 1 and alone == {len(self.names)}:
            return (
                f": a quotation mark opens a field of {len(used)} lines, each of which is a row "
                "without it. Is it a letter? (--quoting=none)"
            )
        return fields

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.file.separator)

    @contextlib.contextmanager
    def _lines(self) -> Iterator[Iterator[str]]:
        """Opens the lines of the file."""
        path, encoding = self.path, self.encoding or self.file.encoding
        encoding = "utf-8-sig" if encoding == "utf-8" else encoding
        with gzip.open(path) if _starts(path, GZIP) else path.open("rb") as binary:
            yield iter(io.TextIOWrapper(binary, encoding, errors="surrogateescape", newline=""))


def form_of(file: File) -> type[Form]:
    """Returns the form of a file, by its content; JSON by its name.

    Raises:
        TfrecError: It is a zip or Excel file, or it cannot be read.
    """
    with readable(file.path), file.path.open("rb") as binary:
        start = binary.read(4096)
    if start.startswith(b"PK\x03\x04"):
        raise TfrecError(f"{file.name}: this is a zip or Excel file. Unpack it, or save it as CSV.")
    if start.startswith(b"PAR1") and b"\0" in start:  # no text
        return Parquet
    return JsonLines if JSON.search(file.name) else Text


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tells what is wrong with the file itself, in one line."""
    try:
        yield
    except FileNotFoundError:
        raise missing(path) from None
    except (OSError, EOFError, zlib.error, duckdb.Error) as error:
        if lacks_room(error):
            raise
        reason = " ".join(str(error).split()).rstrip(".")
        raise TfrecError(
            f"{path.name}: cannot be read ({reason}). Is it broken? Get it again."
        ) from None


def lacks_room(error: Exception) -> bool:
    """Returns whether DuckDB ended for lack of memory, or of room on the disk."""
    of_disk = isinstance(error, duckdb.IOException) and "write" in str(error)
    return of_disk or isinstance(error, duckdb.OutOfMemoryException)


def is_pattern(path: Path) -> bool:
    """Returns whether DuckDB would take a name for a pattern, or for another name."""
    return bool(set(str(path)) & set("*?[\\"))


def _scanned(path: Path) -> tuple[bool, int]:
    """Returns whether there is a quotation mark in a file, and how many bytes no line exceeds."""
    marked, longest, run = False, 0, 2
    with path.open("rb") as binary:
        while piece := binary.read(PIECE):
            marked = marked or b'"' in piece
            run = 2 if b"\n" in piece else run + 1
            longest = max(longest, run)
    return marked, longest * PIECE


def _starts(path: Path, magic: bytes) -> bool:
    """Returns whether a file begins so, whatever its name."""
    with path.open("rb") as binary:
        return binary.read(len(magic)) == magic


def as_sql(value: Any) -> str:
    """Returns a text, a truth value, a number or a mapping of texts as SQL."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{literal(k)}: {literal(v)}" for k, v in value.items()) + "}"
    return literal(value) if isinstance(value, str) else str(value).lower()


def undecodable(encoding: str) -> str:
    """Returns what is said of bytes that are not of the encoding."""
    return f"bytes that are not {encoding}. Name the file's own with --encoding."


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
    counts = {other: text.count(other) for other in SEPARATORS if other != separator}
    best = max(counts, key=lambda other: counts[other])
    if counts[best] < len(fields):
        return ""
    name = SEPARATORS[best]
    return (
        f" Is the separator {'a tab' if name == 'tab' else f'{chr(34)}{name}{chr(34)}'}? "
        f'(--separator="{name}")'
    )
