"""How a file is written, and its bytes."""

import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from tfrec.data import parquet
from tfrec.errors import TfrecError


@dataclass(frozen=True)
class FileChunk:
    """Some rows of a file, written as the file is (with its header, where it has one)."""

    name: str
    content: bytes

    def open(self, mode: str) -> BinaryIO:
        """Opens the rows for reading, as Path.open does."""
        return io.BytesIO(self.content)


Folder = Path | zipfile.Path
Location = Folder | FileChunk
Kind = Literal[
    "whole", "number", "number or nothing", "id", "text"
]  # a text may be empty, an id may not


@dataclass(frozen=True)
class Layout:
    """How a table is written: {column in the file: our name, "" to ignore it}, in the file's order.

    quoted: may a field stand in quotation marks? (separators of one character only)
    """

    file: str
    columns: dict[str, str]
    separator: str = ","
    header: bool = False
    encoding: str = "utf-8-sig"
    quoted: bool = True

    def theirs(self, ours: str) -> str:
        """Returns the file's own name of a column; ours where it has none."""
        name = next((theirs for theirs, name in self.columns.items() if name == ours), ours)
        return name if self.header else ours


@contextlib.contextmanager
def readable(path: Location) -> Iterator[None]:
    """What goes wrong with the file itself, in one line."""
    try:
        yield
    except FileNotFoundError:
        raise TfrecError(
            f"{path}: there is no such file. Is the path right, and the data set complete?"
        ) from None
    except (OSError, zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise TfrecError(
            f"{path.name}: cannot be read ({reason}). Is it broken? Get it again."
        ) from None


def is_parquet(path: Location) -> bool:
    """Returns whether a file begins as Parquet files do."""
    with readable(path), path.open("rb") as file:
        return file.read(4) == parquet.MAGIC


def open_bytes(path: Location) -> BinaryIO:
    """Returns the bytes of the file; those inside, where it is gzipped, whatever its name."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        raise TfrecError(f"{path.name}: this is a zip or Excel file. Unpack it, or save it as CSV.")
    return gzip.open(path.open("rb")) if start[:2] == b"\x1f\x8b" else path.open("rb")  # type: ignore[return-value,arg-type]
