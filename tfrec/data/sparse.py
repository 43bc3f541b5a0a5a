"""SparseFeatures: what is known of products, or of users, in compressed rows."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Entries: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class SparseFeatures:
    """A matrix [N, F] of which only the entries are kept; all others are 0.

    Args:
        begins: Where the entries of each row begin, int64 [N + 1]; the last is their number n.
        columns: Column of each entry, ascending within a row, int32 [n].
        values: f32 [n].
        names: Names of the F columns.
    """

    begins: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]

    @staticmethod
    def of_entries(entries: Entries, count: int, names: Sequence[str]) -> "SparseFeatures":
        """Returns the matrix of entries in any order, the sum where a place comes repeatedly.

        Args:
            entries: Rows and columns int [n], and values f32 [n].
            count: Number of rows.
            names: Names of the columns.
        """
        rows, columns, values = entries
        keys = rows.astype(np.int64) * max(len(names), 1) + columns
        if not (np.diff(keys) > 0).all():
            order = np.argsort(keys, kind="stable")
            keys, values = keys[order], np.asarray(values)[order]
            first = np.flatnonzero(np.diff(keys, prepend=-1))
            keys = keys[first]
            values = np.add.reduceat(values, first) if len(first) else values
        rows, columns = np.divmod(keys, max(len(names), 1))
        begins = np.searchsorted(rows, np.arange(count + 1))
        values = np.asarray(values, np.float32)
        return SparseFeatures(begins, columns.astype(np.int32), values, tuple(names))

    @staticmethod
    def from_dense(table: np.ndarray, names: Sequence[str] | None = None) -> "SparseFeatures":
        """Returns the matrix of f32 [N, F]; names: None for "0", "1" and so on."""
        rows, columns = np.nonzero(table)
        values = np.asarray(table[rows, columns], np.float32)
        names = tuple(map(str, range(table.shape[1]))) if names is None else names
        return SparseFeatures.of_entries((rows, columns, values), len(table), names)

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (N, F)."""
        return len(self.begins) - 1, len(self.names)

    @property
    def rows(self) -> np.ndarray:
        """Returns the row of each entry, int64 [n]."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.begins))

    def dense(self) -> np.ndarray:
        """Returns f32 [N, F]."""
        table = np.zeros(self.shape, np.float32)
        table[self.rows, self.columns] = self.values
        return table

    def beside(self, other: "SparseFeatures") -> "SparseFeatures":
        """Returns both matrices, of the same rows, beside each other."""
        entries = (
            np.concatenate([self.rows, other.rows]),
            np.concatenate([self.columns, other.columns + np.int32(len(self.names))]),
            np.concatenate([self.values, other.values]),
        )
        return SparseFeatures.of_entries(entries, self.shape[0], self.names + other.names)

    def take(self, rows: np.ndarray) -> "SparseFeatures":
        """Returns some of the rows, int [n]."""
        sizes = np.diff(self.begins)[rows]
        begins = np.concatenate([[0], np.cumsum(sizes)])
        entries = np.arange(begins[-1]) + np.repeat(self.begins[rows] - begins[:-1], sizes)
        return SparseFeatures(begins, self.columns[entries], self.values[entries], self.names)

    def with_values(self, values: np.ndarray) -> "SparseFeatures":
        """Returns the matrix with other values f32 [n] in the same places."""
        return SparseFeatures(self.begins, self.columns, values.astype(np.float32), self.names)

    def unit_rows(self) -> "SparseFeatures":
        """Returns the matrix with each row divided by its length; rows of zeros stay such."""
        squares = np.bincount(self.rows, self.values.astype(np.float64) ** 2, self.shape[0])
        length = np.sqrt(squares)[self.rows]
        return self.with_values(self.values / np.where(length, length, 1))

    @property
    def fingerprint(self) -> int:
        """Returns a number that changes with the matrix."""
        total = zlib.crc32(repr(self.shape).encode())
        for array in (self.begins, self.columns, self.values):
            total = zlib.crc32(array.tobytes(), total)
        return total
