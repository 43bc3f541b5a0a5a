"""Parquet, read as the text readers read.

A fast way for columns of the right type, row by row for the others.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

MAGIC = b"PAR1"


def frame(file: BinaryIO, columns: Sequence[str] | None) -> pd.DataFrame:
    """Returns the columns (None: all) of the file.

    Raises:
        OSError: the file is broken.
    """
    try:
        table = pyarrow.parquet.ParquetFile(file).read(columns)
        return table.to_pandas(integer_object_nulls=True, ignore_metadata=True)
    except (pyarrow.ArrowException, ValueError) as error:
        raise OSError(str(error).split("\n")[0]) from None


def pieces(file: BinaryIO, columns: Sequence[str], rows: int) -> Iterator[tuple[int, bytes]]:
    """(rows before it, a Parquet file of its own) for so many rows of the file after the others.

    Raises:
        OSError: the file is broken.
    """
    before = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(rows, columns=list(columns)):
            made = io.BytesIO()
            pyarrow.parquet.write_table(
                pyarrow.Table.from_batches([batch]), made, compression="none", use_dictionary=False
            )
            yield before, made.getvalue()
            before += len(batch)
    except (pyarrow.ArrowException, ValueError) as error:
        raise OSError(str(error).split("\n")[0]) from None


def names(file: BinaryIO) -> list[str]:
    """Returns the names of the columns of a Parquet file."""
    return _schema(file).names


def text_names(file: BinaryIO) -> list[str]:
    """Returns the columns of texts."""
    return [field.name for field in _schema(file) if "string" in str(field.type)]


def _schema(file: BinaryIO) -> pyarrow.Schema:
    try:
        return pyarrow.parquet.ParquetFile(file).schema_arrow
    except (pyarrow.ArrowException, ValueError) as error:
        raise OSError(str(error).split("\n")[0]) from None


def rows(table: pd.DataFrame) -> Iterator[tuple[int, list[Any]]]:
    """(row, its fields as text; lists stay lists). Row 1 is the first row of data."""
    yield from enumerate(
        (list(fields) for fields in zip(*(_texts(table[name]) for name in table))), 1
    )


def numbers(values: pd.Series, kind: str) -> np.ndarray | None:
    """int64 of a column of whole numbers or times, float32 of a column of numbers.

    None where some have to be looked at.
    """
    if (
        kind == "whole"
        and isinstance(values.dtype, np.dtype | pd.DatetimeTZDtype)
        and values.dtype.kind == "M"
    ):
        return None if values.isna().any() else seconds(values)
    if kind == "whole" and pd.api.types.is_integer_dtype(values.dtype):
        return values.to_numpy(np.int64)
    if kind == "number" and pd.api.types.is_numeric_dtype(values.dtype):
        found = values.to_numpy(np.float64)
        return (
            found.astype(np.float32) if (np.abs(found) <= np.finfo(np.float32).max).all() else None
        )
    return None


def seconds(values: pd.Series) -> np.ndarray:
    """Times as seconds since 1970; without a time zone they are UTC."""
    return pd.to_datetime(values, utc=True).astype("datetime64[s, UTC]").astype(np.int64).to_numpy()


def _texts(values: pd.Series) -> list[Any]:
    if values.dtype.kind == "M":
        known = values.notna()
        texts = pd.Series("", index=values.index, dtype=object)
        texts[known] = seconds(values[known]).astype(str)
        return texts.tolist()
    return [_text(value) for value in values]


def _text(value: Any) -> Any:
    if isinstance(value, list | np.ndarray):
        return [str(item) for item in value if item is not None]
    if value is None or value is pd.NA or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
