"""Pieces of rows -> the folder that blocks.py describes."""

import json
import zlib
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tfrec.config import DataConfig
from tfrec.data import features
from tfrec.data.blocks import ARRAYS, BLOCK, NAME, NAMES, SHARD, TYPES, VERSION, empty, file_of
from tfrec.data.dataset import Dataset
from tfrec.data.tables import PARTS


def write(
    folder: Path,
    dataset: Dataset,
    rows: Iterable[tuple[dict[str, np.ndarray], np.ndarray]],
    config: DataConfig,
    more: dict[str, Any] | None = None,
    block: int = BLOCK,
    shard: int = SHARD,
) -> None:
    """Writes the folder, which must be there.

    dataset: all but the rows; its targets are scaled by the training rows here, as
    config.target_scaling says. rows: pieces of any length, in file order: (user, product, rating,
    and timestamp where there is time; each row's place in PARTS,
        int8; rows with a negative one are left out).
    more: what else shall stand in the manifest. block: rows. shard: blocks.
    """
    writer = _Writer(folder, dataset, config, block, shard)
    for columns, part in rows:
        writer.add(columns, part)
    writer.close()
    dataset, mean = writer.scaled()
    total = zlib.crc32(np.array(writer.crc).tobytes())
    for array in (dataset.features, dataset.user_features):
        total = zlib.crc32(array.tobytes(), total)
    np.savez(
        folder / "arrays.npz",
        user_counts=writer.user_counts,
        product_counts=writer.product_counts,
        **{name: getattr(dataset, name) for name in ARRAYS},
    )
    for name in ("user_ids", "product_ids"):
        pd.DataFrame({"id": getattr(dataset, name)}).to_parquet(folder / f"{name}.parquet")
    dataset.products.to_parquet(folder / "products.parquet")
    manifest = {name: getattr(dataset, name) for name in NAMES} | {
        "version": VERSION,
        "settings": vars(config),
        "shards": {
            part: _shards(folder, part, size, block * shard)
            for part, size in zip(PARTS, writer.sizes)
        },
        "block": block,
        "shard": shard,
        "fingerprint": total,
        "mean": mean,
        **writer.ranges(dataset),
        "target": {"scaling": config.target_scaling, "offset and scale": "arrays.npz"},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | (more or {}), indent=2) + "\n")


class _Writer:
    """Cuts rows into blocks, and counts what is said of all of the training rows."""

    def __init__(
        self, folder: Path, dataset: Dataset, config: DataConfig, block: int, shard: int
    ) -> None:
        import tensorflow_datasets as tfds  # slow to import, and only needed here
        from tensorflow_datasets.core.dataset_info import DatasetIdentity

        self.dataset, self.config, self.block = dataset, config, block
        self.timed = dataset.timestamp is not None
        shapes: dict[str, tuple] = {name: (None,) for name in TYPES} | {
            "context": (None, len(dataset.context_names))
        }
        names = [name for name in TYPES if self.timed or name not in ("timestamp", "context")]
        kinds = {
            name: tfds.features.Tensor(shape=shapes[name], dtype=TYPES[name], encoding="bytes")
            for name in names
        }
        who = DatasetIdentity(
            name=NAME, version=tfds.core.Version("1.0.0"), data_dir=str(folder), module_name="tfrec"
        )
        info = tfds.core.DatasetInfo(builder=who, features=tfds.features.FeaturesDict(kinds))
        self.writer = tfds.core.SequentialWriter(info, max_examples_per_shard=shard)
        self.writer.initialize_splits(list(PARTS))
        self.waiting: list[dict[str, np.ndarray]] = [
            {name: empty(name, shapes["context"][1]) for name in names} for _ in PARTS
        ]
        self.sizes, self.crc = [0] * len(PARTS), [0] * len(PARTS)
        self.user_counts, self.product_counts = (
            np.zeros(dataset.num_users, np.int64),
            np.zeros(dataset.num_products, np.int64),
        )
        self.low, self.high = (
            np.full(dataset.num_products, bound, np.float32) for bound in (np.inf, -np.inf)
        )
        self.sums, self.squares, self.latest = np.zeros(dataset.num_products), 0.0, -(2**62)

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

    def scaled(self) -> tuple[Dataset, float]:
        """The data set with scaled targets and its default context, and the mean of the targets of
        the training rows.
        """
        seen = np.flatnonzero(self.product_counts)
        extremes = replace(
            self.dataset,
            product=np.tile(seen, 2),
            rating=np.concatenate([self.low[seen], self.high[seen]]),
        )
        count = max(int(self.product_counts.sum()), 1)
        if self.config.target_scaling == "standard":
            mean = self.sums.sum() / count
            made = extremes.standardised(mean, max(self.squares / count - mean**2, 0.0) ** 0.5)
        else:
            made = extremes.with_scaling(self.config.target_scaling, np.arange(2 * len(seen)))
        scale = made.scale.astype(np.float64)
        of_product = (self.sums - self.product_counts * made.offset) / np.where(
            scale == 0, 1, scale
        )
        total = np.where(scale == 0, 0.5 * self.product_counts, of_product).sum()
        if self.timed:
            made = replace(
                made, default_context=features.context(np.array([self.latest]), 1, self.config)[2]
            )
        return made, float(total / count)

    def ranges(self, dataset: Dataset) -> dict[str, tuple[float, float]]:
        """Of the training rows' ratings, and of their targets."""
        seen = np.flatnonzero(self.product_counts)
        targets = [dataset.scaled(edge[seen], seen) for edge in (self.low, self.high)]
        return {
            "rating_range": (float(self.low.min()), float(self.high.max())),
            "target_range": (float(targets[0].min()), float(targets[1].max())),
        }

    def _count(self, columns: dict[str, np.ndarray]) -> None:
        user, product, rating = columns["user"], columns["product"], columns["rating"]
        np.add.at(self.user_counts, user, 1)
        np.add.at(self.product_counts, product, 1)
        np.add.at(self.sums, product, rating)
        self.squares += float(np.square(rating, dtype=np.float64).sum())
        np.minimum.at(self.low, product, rating)
        np.maximum.at(self.high, product, rating)

    def _emit(self, number: int, columns: dict[str, np.ndarray]) -> None:
        self.writer.add_examples({PARTS[number]: [columns]})
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
