"""Interactions on disk, for more rows than fit into memory: what scripts/prepare.py wrote.

The rows lie in a TFDS data set (`tfds.builder_from_directory` reads it, too) with the splits train,
validation, test and disliked (training rows that are no likes), each in file order. One example is
a block of columns, BLOCK rows (the last one of a split fewer): user, product int32 [n], rating f32
[n], and where there are timestamps, timestamp int64 [n] and context f32 [n, C]; where rows have
weights, weight f32 [n]. Columns are raw bytes: as TFDS' usual lists of numbers they take seven
times as long to write, and half as long again to read. SHARD blocks make a file, the unit in which
training rows are shuffled. Beside them lie

    manifest.json         version, names, settings, rows and bytes of each file, fingerprint
    arrays.npz            features, user_features, default_context, and of the training rows
                          user_counts, product_counts, low, high and total rating of each product
    user_ids.parquet      raw ids, one column
    product_ids.parquet   likewise
    products.parquet      the table for people

An epoch is an order of the files, cut into parts of SHARDS_AT_ONCE, within which the rows are
shuffled. Every machine of a cluster has a shard of its own of this order, which it alone reads and
of which it makes its slices: each row is in one global batch of an epoch, but in which one depends
on the number of machines. These shards have the same length: one that has a row less repeats its
last one at weight 0.
"""

import functools
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import tensorflow as tf

from tfrec.data.batches import (
    AHEAD,
    ROWS_AT_ONCE,
    Batch,
    BatchSettings,
    Block,
    NegativeSampler,
    Slices,
    Start,
    endless,
    feature_tables,
    in_order,
    steps_per_epoch,
    with_features,
    with_orders,
)
from tfrec.data.catalog import Catalog
from tfrec.data.forms import short
from tfrec.data.interactions import Columns, Interactions, Split, progress
from tfrec.data.memory import MemoryInteractions
from tfrec.data.reading import read_parquet
from tfrec.data.settings import Features, FeatureSettings
from tfrec.data.sparse import SparseFeatures
from tfrec.data.tables import PARTS
from tfrec.data.targets import RatingStats, Scaling, identity
from tfrec.errors import TfrecError, UsageError
from tfrec.settings import fields

BLOCK = 65_536  # rows
SHARD = 16  # blocks
SHARDS_AT_ONCE = 2  # some 100 MB
VERSION = 4
NAME = "blocks"  # of the TFDS data set
TYPES = {
    "user": np.int32,
    "product": np.int32,
    "rating": np.float32,
    "timestamp": np.int64,
    "context": np.float32,
    "weight": np.float32,
}
DISLIKED = "disliked"  # training rows that are no likes
STORED = (*PARTS, DISLIKED)
NAMES = ("name", "context_names", "rated", "weighted")
FEATURES = ("features", "user_features")
ENTRIES = ("begins", "columns", "values")  # of each of them
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, duckdb.Error)
PACKED = ("user", "product", "rating", "weight")
USER, PRODUCT = PACKED.index("user"), PACKED.index("product")


@dataclass(frozen=True, eq=False)
class Folder:
    """A prepared data set.

    Args:
        path: Where it is.
        manifest: What prepare.py noted.
        arrays: Those of arrays.npz.
    """

    path: Path
    manifest: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that it was prepared with."""
        return self.manifest["settings"]

    @functools.cached_property
    def stats(self) -> RatingStats:
        """Of the ratings of the training rows."""
        facts = self.manifest["rating"]
        return RatingStats(
            facts["mean"], facts["deviation"], *(self.arrays[n] for n in ("low", "high"))
        )

    def sizes(self, part: str) -> np.ndarray:
        """Rows of each file of a part, int64 [S]."""
        return np.array([shard["rows"] for shard in self.manifest["shards"][part]], np.int64)

    def files(self, part: str) -> list[str]:
        """Returns the files of a part.

        Raises:
            TfrecError: One is missing or not whole.
        """
        files = []
        for number, shard in enumerate(self.manifest["shards"][part]):
            file = file_of(self.path, part, number)
            if not file.is_file() or file.stat().st_size != shard["bytes"]:
                what = "is not whole" if file.is_file() else "is missing"
                raise _broken(self.path, f"{file.name} {what}")
            files.append(str(file))
        return files


def open_folder(path: str | Path) -> Split:
    """Returns the parts of a prepared data set, on disk.

    Raises:
        UsageError: There is no prepared data set in the folder.
        TfrecError: It is broken.
    """
    path = Path(path).expanduser()
    manifest = _manifest(path)
    try:
        with np.load(path / "arrays.npz") as file:
            arrays = dict(file)
        ids = {
            name: read_parquet(path / f"{name}.parquet")["id"].to_numpy()
            for name in ("user_ids", "product_ids")
        }
        products = read_parquet(path / "products.parquet")
    except BROKEN as error:
        raise _broken(path, str(error)) from None
    names = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest.items()
        if name in NAMES
    }
    known: dict[str, Any] = {"default_context": arrays["default_context"]} | ids | names
    for name in FEATURES:
        entries = {of: arrays[f"{name}_{of}"] for of in ENTRIES}
        known[name] = SparseFeatures(**entries, names=tuple(manifest[name]))
    folder = Folder(path, manifest, arrays)
    of_time: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in folder.settings.items()
        if name in fields(Features)
    }
    time = FeatureSettings(**of_time)
    catalog = Catalog(products=products, time=time, **known)
    train, validation, test = (DiskInteractions(catalog, folder, part) for part in PARTS)
    if folder.settings["positive_from"] is not None:
        train.disliked = DiskInteractions(catalog, folder, DISLIKED)
    return Split(train, validation, test)


def prepared_with(split: Split) -> dict[str, Any]:
    """Returns the settings that the parts of a prepared data set were made with."""
    assert isinstance(split.train, DiskInteractions)
    return split.train.folder.settings


class DiskInteractions(Interactions):
    """The rows of one part of a prepared data set."""

    in_memory = False

    def __init__(self, catalog: Catalog, folder: Folder, part: str) -> None:
        super().__init__(catalog)
        self.folder, self.part = folder, part
        self.files, self.sizes = folder.files(part), folder.sizes(part)
        self.names, self.context_width = stored(catalog), len(catalog.context_names)

    def __len__(self) -> int:
        return int(self.sizes.sum())

    @property
    def timed(self) -> bool:
        return self.context_width > 0

    @functools.cached_property
    def _counts(self) -> dict[str, np.ndarray]:
        if self.part == "train":
            return {side: self.folder.arrays[f"{side}_counts"] for side in ("user", "product")}
        sizes = {"user": self.num_users, "product": self.num_products}
        counts = {side: np.zeros(size, np.int64) for side, size in sizes.items()}
        for chunk in self.chunks():
            for side, count in counts.items():
                count += np.bincount(chunk[side], minlength=len(count))
        return counts

    def counts(self, side: str) -> np.ndarray:
        return self._counts[side]

    def users(self) -> np.ndarray:
        return np.flatnonzero(self.counts("user"))

    def chunks(self) -> Iterator[Columns]:
        """As Interactions.chunks.

        Raises:
            TfrecError: A file is broken.
        """
        if not self.files:
            return
        records = tf.data.TFRecordDataset(self.files, buffer_size=8 << 20)
        columns = records.map(lambda record: self._columns(record[None])).prefetch(1)
        try:
            yield from columns.as_numpy_iterator()
        except (
            tf.errors.DataLossError,
            tf.errors.InvalidArgumentError,
            tf.errors.NotFoundError,
        ) as error:
            raise _broken(self.folder.path, error.message.split("}} ")[-1]) from None

    def of_users(self, users: np.ndarray) -> MemoryInteractions:
        chosen = np.isin(np.arange(self.num_users), users)
        found = {name: [empty(name, self.context_width)] for name in {"context", *self.names}}
        for chunk in progress(self.chunks()):
            own = chosen[chunk["user"]]
            for name, pieces in found.items():
                pieces.append(chunk[name][own])
        names = list(found)
        # pieces go as soon as they are joined
        columns = {name: np.concatenate(found.pop(name)) for name in names}
        return MemoryInteractions(self.catalog, columns)

    @property
    def stats(self) -> RatingStats:
        if self.part != "train":
            raise NotImplementedError("prepare.py counts the training rows alone")
        return self.folder.stats

    def scaled_mean(self, scaling: Scaling) -> float:
        counts, scale = self.counts("product"), scaling.scale.astype(np.float64)
        total = self.folder.arrays["total"] - counts * scaling.offset
        of_product = np.where(scale == 0, 0.5 * counts, total / np.where(scale == 0, 1, scale))
        return float(of_product.sum() / max(counts.sum(), 1))

    @property
    def fingerprint(self) -> int:
        return zlib.crc32(self.part.encode(), self.folder.manifest["fingerprint"])

    def read(self, shards: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns all rows of some files (their numbers, int64 [k]) with the columns of `chunks`.

        For use inside a graph.
        """
        with tf.init_scope():
            files = tf.constant(self.files)
        records = tf.data.TFRecordDataset(tf.gather(files, shards), buffer_size=8 << 20)
        every = records.batch(tf.size(shards, tf.int64) * self.folder.manifest["shard"])
        return self._columns(every.get_single_element())

    def _columns(self, records: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns of serialised blocks, string [k], one behind the other."""
        lengths = {name: tf.io.FixedLenFeature([], tf.string) for name in self.names}
        raw = tf.io.parse_example(records, lengths)
        columns = {
            name: tf.io.decode_raw(tf.strings.reduce_join(raw[name]), TYPES[name])
            for name in self.names
        }
        if not self.timed:
            return columns | {"context": tf.zeros([tf.size(columns["user"]), 0])}
        columns["context"] = tf.reshape(columns["context"], [-1, self.context_width])
        return columns | {"day": tf.cast(columns["timestamp"] // 86_400, tf.int32)}

    def _unpacked(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the columns [...] of `_packed` ones [..., W], and context f32 [..., C]."""
        packed = [name for name in PACKED if name in self.names]
        columns = {name: rows[..., at] for at, name in enumerate(packed)}
        for name in {"rating", "weight"} & columns.keys():
            columns[name] = tf.bitcast(columns[name], tf.float32)
        context = rows[..., len(packed) : len(packed) + self.context_width]
        columns["context"] = tf.bitcast(context, tf.float32)
        return columns | ({"day": rows[..., -1]} if self.timed else {})

    def training_dataset(
        self, settings: BatchSettings, start: Start, slices: Slices
    ) -> tf.data.Dataset:
        shard = _input_shard(len(self), settings.batch_size, slices)
        steps = steps_per_epoch(len(self), settings.batch_size)
        at_once = settings.steps_at_once
        blocks = -(-steps // at_once)
        count = slices[1]
        finish = self._finisher(settings, shard, count)

        def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
            start_step = tf.where(epoch == start[0], tf.cast(start[1], tf.int64), 0)
            first_block = start_step // at_once
            from_row = first_block * at_once * shard.batch
            rows = self._rows(shard, from_row, settings.seed, epoch)
            numbers = tf.data.Dataset.range(first_block, blocks)
            numbered = tf.data.Dataset.zip(numbers, rows.rebatch(at_once * shard.batch))
            # as in memory
            key = tf.stack([tf.constant(settings.seed, tf.int64) * blocks, -1 - epoch])
            made = numbered.map(
                lambda block, found: finish(block, found, key), tf.data.AUTOTUNE, deterministic=True
            )
            batches = made.flat_map(lambda *block: tf.data.Dataset.from_tensor_slices(block))
            return batches.skip(start_step % at_once * count)

        return endless(epoch_batches, start, AHEAD * at_once * count)

    def _rows(
        self, shard: "InputShard", start: tf.Tensor, seed: int, epoch: tf.Tensor
    ) -> tf.data.Dataset:
        """Returns the worker's rows in an epoch, from its row `start` int64 [] on, in pieces,
        `_packed`.
        """
        with tf.init_scope(), tf.device("CPU:0"):
            sizes = tf.constant(self.sizes)
        count = len(self.sizes)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count, dtype=tf.int64), [seed, tf.cast(epoch, tf.int32)]
        )
        ends = tf.cumsum(tf.gather(sizes, order))
        begins = ends - tf.gather(sizes, order)
        from_row = shard.begin + start

        def file_with(row: tf.Tensor | int) -> tf.Tensor:
            return tf.math.count_nonzero(ends <= tf.cast(row, tf.int64))

        first, last = file_with(shard.begin), file_with(shard.end - 1)
        parts = (last - first) // SHARDS_AT_ONCE + 1
        # a worker may end with its repeated row
        part = tf.minimum((file_with(from_row) - first) // SHARDS_AT_ONCE, parts - 1)

        def part_of(number: tf.Tensor) -> tf.data.Dataset:
            low = first + number * SHARDS_AT_ONCE
            high = tf.minimum(low + SHARDS_AT_ONCE, last + 1)
            found = _packed(self.read(order[low:high]))
            begin, end = tf.maximum(begins[low], shard.begin), tf.minimum(ends[high - 1], shard.end)
            key = [tf.constant(seed), -2 - tf.cast(epoch * count + number, tf.int32)]
            shuffled = tf.random.experimental.stateless_shuffle(tf.range(begin, end), key)
            place = shuffled - begins[low]
            lacks = tf.where(end == shard.end, shard.length - (shard.end - shard.begin), 0)
            place = tf.concat([place, place[tf.size(place) - lacks :]], axis=0)
            place = place[tf.maximum(from_row - begin, 0) :]
            pieces = tf.data.Dataset.range(0, tf.size(place, tf.int64), ROWS_AT_ONCE)
            return pieces.map(lambda at: tf.gather(found, place[at : at + ROWS_AT_ONCE]))

        return tf.data.Dataset.range(part, parts).flat_map(part_of).prefetch(64)

    def _finisher(
        self, settings: BatchSettings, shard: "InputShard", count: int
    ) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[Batch, tf.Tensor, tf.Tensor]]:
        """Returns what makes of a block's number, its rows and the epoch's key the slices of its
        steps: (batch, y, weight), [slices, width, ...].
        """
        size, every = settings.batch_size, len(self)
        steps, at_once = steps_per_epoch(every, size), settings.steps_at_once
        features, width = feature_tables(self.catalog, settings.reads), shard.batch // count
        scaling = settings.scaling or identity(self.num_products)
        mean = self.folder.manifest["rating"]["weight"]
        with tf.device("CPU:0"):
            scale, offset = tf.constant(scaling.scale), tf.constant(scaling.offset)
        for name in ("confidence_power", "recency"):
            if getattr(settings, name):
                raise UsageError(f"{name} needs the training rows in memory.")
        add_negatives = None
        if settings.negatives:
            if settings.negatives.exclude_positives:
                raise UsageError("exclude_positives needs the training rows in memory.")
            add_negatives = NegativeSampler(
                settings.negatives, self.counts("product"), None, settings.batch_size
            )

        def finish(
            block: tf.Tensor, found: tf.Tensor, key: tf.Tensor
        ) -> tuple[Batch, tf.Tensor, tf.Tensor]:
            done = block * at_once
            # the step of each slice
            within = tf.repeat(tf.range(tf.minimum(done + at_once, steps) - done), count)[:, None]
            step = done + within
            slot = tf.tile(tf.range(count, dtype=tf.int64), [tf.shape(within)[0] // count])
            place = slot[:, None] * width + tf.range(width, dtype=tf.int64)
            real = tf.minimum(shard.length - step * shard.batch, shard.batch)
            if settings.ordered:
                users = tf.gather(found[:, USER], within * shard.batch + place % real)
                _, place = in_order(users, tf.broadcast_to(place, tf.shape(users)))
            batch = self._unpacked(tf.gather(found, within * shard.batch + place % real))
            rating, row_weight = batch.pop("rating"), batch.pop("weight", None)
            batch = {name: column for name, column in batch.items() if settings.reads(name)}
            batch = with_features(batch, features)
            if add_negatives:
                y = tf.ones(tf.shape(place))
                slot = tf.range(shard.batch, dtype=tf.int64)
                drawn = Block(
                    steps=at_once,
                    key=key + tf.stack([block, 0]),
                    step=within[:, 0],
                    row=within * size + shard.first + place % real,
                    products=tf.gather(found[:, PRODUCT], within * shard.batch + slot % real),
                    real=tf.cast(slot < real, tf.float32),
                )
                batch |= add_negatives(drawn, batch["user"])
            else:
                of_scale = tf.gather(scale, batch["product"])
                scaled = rating - tf.gather(offset, batch["product"])
                y = tf.where(of_scale == 0, 0.5, scaled / tf.where(of_scale == 0, 1.0, of_scale))
            if settings.ordered:
                batch = with_orders(batch)
            # rows of the global batch
            of_all = tf.cast(tf.minimum(every - step * size, size), tf.float32)
            is_row = (place < real) & (step * shard.batch + place < shard.rows)
            weight = tf.where(is_row, size / of_all, 0.0)
            return batch, y, weight if row_weight is None else weight * row_weight / mean

        return finish


@dataclass(frozen=True)
class InputShard:
    """The rows that one machine reads: begin .. end - 1 of an epoch's order, made up to `length`.

    Args:
        batch: How many of them are in each global batch, from its row `first` on.
        rows: How many of them are its own: all, or none where there are fewer rows than machines.
    """

    begin: int
    end: int
    rows: int
    length: int
    batch: int
    first: int


def _input_shard(rows: int, batch_size: int, slices: Slices) -> InputShard:
    first, count, total = slices
    number, machines = first // count, total // count
    begin, end = (at * rows // machines for at in (number, number + 1))
    own, batch = end - begin, batch_size // machines
    if not own:  # a machine without rows shows another's, at weight 0
        begin, end = max(begin - 1, 0), max(begin, 1)
    return InputShard(begin, end, own, -(-rows // machines), batch, number * batch)


def empty(name: str, width: int) -> np.ndarray:
    """Returns a column without rows; width: of the context."""
    return np.zeros((0, width) if name == "context" else 0, TYPES[name])


def stored(catalog: Catalog) -> list[str]:
    """Returns the names of the columns of a block."""
    lacks = set() if catalog.context_names else {"timestamp", "context"}
    lacks |= set() if catalog.weighted else {"weight"}
    return [name for name in TYPES if name not in lacks]


def file_of(folder: Path, part: str, number: int) -> Path:
    """Returns the file of that number."""
    return folder / f"{NAME}-{part}.tfrecord-{number:05}"


def _packed(columns: dict[str, tf.Tensor]) -> tf.Tensor:
    """Columns of 32 bits as one table int32 [n, W].

    A row is then one place in memory, and shuffling three times as fast.
    """
    names = [name for name in (*PACKED, "context", "day") if name in columns]
    count = tf.size(columns["user"])
    return tf.concat(
        [tf.bitcast(tf.reshape(columns[name], [count, -1]), tf.int32) for name in names], axis=1
    )


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder}: there is no prepared data set in it. "
            f"scripts/prepare.py --output={folder} makes one."
        )
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, f"manifest.json: {error}") from None
    if version != VERSION:
        raise TfrecError(
            f"{folder}: written in version {version}, this tfrec reads version {VERSION}. "
            "Prepare it again."
        )
    return manifest


def _broken(folder: Path, reason: str) -> TfrecError:
    return TfrecError(f"{folder}: cannot be read ({short(reason).rstrip('.')}). Prepare it again.")
