"""Pieces of rows -> the folder that disk.py describes."""

import dataclasses
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec.data import features
from tfrec.data.catalog import Catalog
from tfrec.data.disk import (
    BLOCK,
    ENTRIES,
    FEATURES,
    NAME,
    NAMES,
    SHARD,
    STORED,
    TYPES,
    VERSION,
    empty,
    file_of,
    stored,
)
from tfrec.data.reading import write_parquet
from tfrec.data.settings import DataSettings


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Rows of a block, and blocks of a file."""

    block: int = BLOCK
    shard: int = SHARD


def write(
    folder: Path,
    catalog: Catalog,
    rows: Iterable[tuple[dict[str, np.ndarray], np.ndarray]],
    config: DataSettings,
    sizes: Sizes,
) -> dict[str, Any]:
    """Writes a folder, which must be there, all but its manifest.

    Args:
        rows: Pieces of any length, in file order: user, product, rating, and timestamp where there
            is time; and each row's place in STORED, int8. Rows with a negative one are left out.
        config: The settings that the folder is prepared with.

    Returns:
        The manifest.
    """
    writer = _Writer(folder, catalog, config, sizes)
    for columns, part in rows:
        writer.add(columns, part)
    writer.close()
    total = zlib.crc32(np.array(writer.crc).tobytes(), catalog.fingerprint)
    if writer.timed:
        latest = features.context(np.array([writer.latest]), 1, config)[2]
        catalog = dataclasses.replace(catalog, default_context=latest)
    arrays = {"default_context": catalog.default_context} | writer.arrays()
    for name in FEATURES:
        of_side = getattr(catalog, name)
        arrays |= {f"{name}_{of}": getattr(of_side, of) for of in ENTRIES}
    np.savez(folder / "arrays.npz", allow_pickle=False, **arrays)
    for name in ("user_ids", "product_ids"):
        write_parquet(pd.DataFrame({"id": getattr(catalog, name)}), folder / f"{name}.parquet")
    write_parquet(catalog.products, folder / "products.parquet")
    shards = {
        part: _shards(folder, part, size, sizes.block * sizes.shard)
        for part, size in zip(STORED, writer.sizes)
    }
    names = {name: getattr(catalog, name).names for name in FEATURES}
    return (
        names
        | {name: getattr(catalog, name) for name in NAMES}
        | {
            "version": VERSION,
            "settings": vars(config),
            "shards": shards,
            "block": sizes.block,
            "shard": sizes.shard,
            "fingerprint": total,
            "rating": writer.rating(),
        }
    )


class _Writer:
    """Cuts rows into blocks, and counts what is said of all of the training rows."""

    def __init__(self, folder: Path, catalog: Catalog, config: DataSettings, sizes: Sizes) -> None:
        import tensorflow_datasets as tfds  # slow to import, and only needed here
        from tensorflow_datasets.core.dataset_info import DatasetIdentity

        self.config, self.block = config, sizes.block
        width = len(catalog.context_names)
        self.timed = width > 0
        names = stored(catalog)
        kinds = {
            name: tfds.features.Tensor(
                shape=(None, width) if name == "context" else (None,),
                dtype=TYPES[name],
                encoding="bytes",
            )
            for name in names
        }
        who = DatasetIdentity(
            name=NAME, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="tfrec"
        )
        info = tfds.core.DatasetInfo(builder=who, features=tfds.features.FeaturesDict(kinds))
        self.writer = tfds.core.SequentialWriter(info, max_examples_per_shard=sizes.shard)
        self.writer.initialize_splits(list(STORED))
        self.waiting = [{name: empty(name, width) for name in names} for _ in STORED]
        self.sizes, self.crc = [0] * len(STORED), [0] * len(STORED)
        products = catalog.num_products
        self.user_counts = np.zeros(catalog.num_users, np.int64)
        self.product_counts = np.zeros(products, np.int64)
        self.low = np.full(products, np.inf, np.float32)
        self.high = np.full(products, -np.inf, np.float32)
        self.total, self.squares, self.latest = np.zeros(products), 0.0, -(2**62)
        self.weight = 0.0

    def add(self, columns: dict[str, np.ndarray], part: np.ndarray) -> None:
        columns = {
            name: columns[name].astype(TYPES[name], copy=False)
            for name in self.waiting[0]
            if name in columns
        }
        if self.timed:
            columns["context"] = features.context(columns["timestamp"], len(part), self.config)[0]
            self.latest = max(
                self.latest, int(columns["timestamp"][part >= 0].max(initial=-(2**62)))
            )
        for number, waiting in enumerate(self.waiting):
            chosen = np.flatnonzero(part == number)
            new = {name: np.take(column, chosen, axis=0) for name, column in columns.items()}
            if number == 0:
                self._count(new)
            joined: dict[str, Any] = {
                name: np.concatenate([waiting[name], new[name]]) for name in waiting
            }
            whole = len(joined["user"]) // self.block * self.block
            for start in range(0, whole, self.block):
                self._emit(
                    number,
                    {name: column[start : start + self.block] for name, column in joined.items()},
                )
            self.waiting[number] = {name: column[whole:].copy() for name, column in joined.items()}

    def close(self) -> None:
        for number, waiting in enumerate(self.waiting):
            if len(waiting["user"]):
                self._emit(number, waiting)
        self.writer.close_all()

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what arrays.npz has of the training rows."""
        names = ("user_counts", "product_counts", "low", "high", "total")
        return {name: getattr(self, name) for name in names}

    def rating(self) -> dict[str, float]:
        """Mean and deviation of the ratings, and mean weight, of the training rows."""
        count = max(int(self.product_counts.sum()), 1)
        mean = self.total.sum() / count
        deviation = max(self.squares / count - mean**2, 0.0) ** 0.5
        if self.low.min() == self.high.max():
            deviation = 0.0  # all are equal; the difference above is not quite 0
        weight = self.weight / count or 1.0
        return {"mean": float(mean), "deviation": float(deviation), "weight": weight}

    def _count(self, columns: dict[str, np.ndarray]) -> None:
        user, product, rating = columns["user"], columns["product"], columns["rating"]
        self.user_counts += np.bincount(user, minlength=len(self.user_counts))
        self.product_counts += np.bincount(product, minlength=len(self.product_counts))
        self.total += np.bincount(product, rating, len(self.total))
        if "weight" in columns:
            self.weight += float(columns["weight"].sum(dtype=np.float64))
        self.squares += float(np.square(rating, dtype=np.float64).sum())
        np.minimum.at(self.low, product, rating)
        np.maximum.at(self.high, product, rating)

    def _emit(self, number: int, columns: dict[str, np.ndarray]) -> None:
        self.writer.add_examples({STORED[number]: [columns]})
        self.sizes[number] += len(columns["user"])
        for column in columns.values():
            self.crc[number] = zlib.crc32(np.ascontiguousarray(column).data, self.crc[number])


def _shards(folder: Path, part: str, rows: int, size: int) -> list[dict[str, int]]:
    """Rows and bytes of each file of a part."""
    counts = [min(size, rows - start) for start in range(0, rows, size)]
    return [
        {"rows": count, "bytes": file_of(folder, part, number).stat().st_size}
        for number, count in enumerate(counts)
    ]
