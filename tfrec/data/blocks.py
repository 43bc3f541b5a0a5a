"""A data set on disk, for more rows than fit into memory: a folder that scripts/prepare.py writes (to_disk.py), and what reads it.

The rows lie in a TFDS data set (`tfds.builder_from_directory` reads it, too) with the splits train, validation and test, each in file
order. One example is a block of columns, BLOCK rows (the last one of a split fewer): user, product int32 [n], rating f32 [n], and where
there are timestamps, timestamp int64 [n] and context f32 [n, C]. Columns are raw bytes: as TFDS' usual lists of numbers they take seven
times as long to write, and half as long again to read. SHARD blocks make a file, the unit in which training rows are shuffled. Beside
them lie

    manifest.json                            version, names, settings, rows and bytes of each file, fingerprint, mean
    arrays.npz                               features, user_features, offset, scale, default_context, user_counts, product_counts
    user_ids.parquet, product_ids.parquet    raw ids, one column
    products.parquet                         the table for people
"""

import dataclasses
import itertools
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tqdm import tqdm

from tfrec.data.careful import short
from tfrec.data.dataset import Dataset
from tfrec.data.splits import Rows
from tfrec.data.tables import PARTS
from tfrec.errors import TfrecError, UsageError

BLOCK = 65_536  # rows
SHARD = 16  # blocks
VERSION = 1
NAME = "blocks"  # of the TFDS data set
TYPES = {"user": np.int32, "product": np.int32, "rating": np.float32, "timestamp": np.int64, "context": np.float32}
NAMES = ("name", "context_names", "feature_names", "user_feature_names", "rated")  # of Dataset, in the manifest
ARRAYS = ("features", "user_features", "offset", "scale", "default_context")  # of Dataset, in arrays.npz


@dataclass(frozen=True, eq=False)
class Stored:
    """The training rows on disk.

    files: the shards, in order. sizes: int64 [S], rows in each.
    user_counts, product_counts: int64 [U], [P], training rows of each. mean: of their scaled targets.
    context_width: C; 0 where there are no timestamps.
    fingerprint: a number that changes with the rows and the features. manifest: what else is known; `settings` fixed the folder.
    users: int [n], those whose training rows are in the Dataset, too.
    """

    files: tuple[str, ...]
    sizes: np.ndarray
    user_counts: np.ndarray
    product_counts: np.ndarray
    mean: float
    context_width: int
    fingerprint: int
    manifest: dict[str, Any]
    users: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def rating_range(self) -> tuple[float, float]:
        """The least and the greatest training rating."""
        return tuple(self.manifest["rating_range"])

    @property
    def target_range(self) -> tuple[float, float]:
        """The least and the greatest target."""
        return tuple(self.manifest["target_range"])

    def __len__(self) -> int:
        return int(self.sizes.sum())

    def chunks(self) -> Iterator[dict[str, np.ndarray]]:
        """The blocks in order: user, product int32 [n], rating f32 [n], context f32 [n, C], and day int32 [n] where there is time.

        Raises:
            TfrecError: a file is broken.
        """
        yield from _blocks(self.files, self.context_width)

    def read(self, shards: tf.Tensor) -> dict[str, tf.Tensor]:
        """All rows of some shards (their numbers, int64 [k]), with the columns of `chunks`; for use inside a graph."""
        with tf.init_scope():
            files = tf.constant(self.files)
        records = tf.data.TFRecordDataset(tf.gather(files, shards), buffer_size=8 << 20)
        every = records.batch(tf.size(shards, tf.int64) * self.manifest["shard"])
        return _columns(every.get_single_element(), self.context_width)


def open(path: str | Path) -> tuple[Dataset, Rows, Stored]:
    """The data set of a folder; the Dataset has the validation and test rows alone, to which Rows points (there are no rows to train).

    Raises:
        UsageError: it is no such folder. TfrecError: it is broken.
    """
    folder = Path(path).expanduser()
    manifest = _manifest(folder)
    try:
        with np.load(folder / "arrays.npz") as file:
            arrays = dict(file)
        ids = {name: pd.read_parquet(folder / f"{name}.parquet")["id"].to_numpy() for name in ("user_ids", "product_ids")}
        products = pd.read_parquet(folder / "products.parquet")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _broken(folder, str(error)) from None
    files = {part: _files(folder, part, manifest) for part in PARTS}
    width = len(manifest["context_names"])
    validation, test = (sum(shard["rows"] for shard in manifest["shards"][part]) for part in PARTS[1:])
    rows = {name: empty(name, width, validation + test) for name in TYPES}
    begin = 0
    for columns in itertools.chain.from_iterable(_blocks(files[part], width, times=True) for part in PARTS[1:]):
        end = begin + len(columns["user"])
        for name, column in rows.items():
            column[begin:end] = columns[name]
        begin = end
    known: dict[str, Any] = {name: arrays[name] for name in ARRAYS} | ids | rows | ({} if width else {"timestamp": None})
    known |= {name: tuple(value) if isinstance(value, list) else value for name, value in manifest.items() if name in NAMES}
    for name in products.select_dtypes(object):  # lists come back as arrays
        products[name] = products[name].map(lambda value: value.tolist() if isinstance(value, np.ndarray) else value)
    dataset = Dataset(**known, part=None, products=products)
    every = np.arange(validation + test)
    sizes = np.array([shard["rows"] for shard in manifest["shards"]["train"]], np.int64)
    stored = Stored(
        files["train"], sizes, arrays["user_counts"], arrays["product_counts"], manifest["mean"], width, manifest["fingerprint"], manifest
    )
    return dataset, Rows(every[:0], every[:validation], every[validation:]), stored


def with_training_rows(dataset: Dataset, rows: Rows, stored: Stored, users: np.ndarray) -> tuple[Dataset, Rows]:
    """The data set of a folder with its training rows: on disk, and those of the users int [n] in its arrays, too."""
    chosen, parts = np.isin(np.arange(dataset.num_users), users), []
    for columns in tqdm(stored.chunks(), "reading", unit="block", delay=2, leave=False, disable=None, dynamic_ncols=True):
        own = chosen[columns["user"]]
        parts.append({name: column[own] for name, column in columns.items()})
    first = {"user": dataset.user, "product": dataset.product, "rating": dataset.rating, "context": dataset.context}
    joined: dict[str, Any] = {name: np.concatenate([column, *(part[name] for part in parts)]) for name, column in first.items()}
    if dataset.timestamp is not None:
        days = [part["day"].astype(np.int64) * 86_400 for part in parts]
        joined["timestamp"] = np.concatenate([dataset.timestamp, *days])
    train = np.arange(len(dataset), len(joined["user"]))
    return replace(dataset, stored=replace(stored, users=users), **joined), replace(rows, train=train)


def empty(name: str, width: int, count: int = 0) -> np.ndarray:
    """Room for `count` rows of a column; width: of the context."""
    return np.zeros((count, width) if name == "context" else count, TYPES[name])


def _blocks(files: tuple[str, ...], width: int, times: bool = False) -> Iterator[dict[str, np.ndarray]]:
    if not files:
        return
    records = tf.data.TFRecordDataset(list(files), buffer_size=8 << 20)
    try:
        yield from records.map(lambda record: _columns(record[None], width, times)).prefetch(1).as_numpy_iterator()
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        raise _broken(Path(files[0]).parent, error.message.split("}} ")[-1]) from None


def _columns(records: tf.Tensor, width: int, times: bool = False) -> dict[str, tf.Tensor]:
    """The columns of serialised blocks, string [k], one behind the other. times: the timestamps, too."""
    names = [name for name in TYPES if width or name not in ("timestamp", "context")]
    raw = tf.io.parse_example(records, {name: tf.io.FixedLenFeature([], tf.string) for name in names})
    columns = {name: tf.io.decode_raw(tf.strings.reduce_join(raw[name]), TYPES[name]) for name in names}
    columns["context"] = tf.reshape(columns["context"], [-1, width]) if width else tf.zeros([tf.size(columns["user"]), 0])
    if width:
        columns["day"] = tf.cast(columns["timestamp"] // 86_400, tf.int32)
        if not times:
            del columns["timestamp"]
    elif times:
        columns["timestamp"] = tf.zeros([tf.size(columns["user"])], tf.int64)
    return columns


def file_of(folder: Path, part: str, number: int) -> Path:
    """The shard of that number."""
    return folder / f"{NAME}-{part}.tfrecord-{number:05}"


def _files(folder: Path, part: str, manifest: dict[str, Any]) -> tuple[str, ...]:
    files = [file_of(folder, part, number) for number in range(len(manifest["shards"][part]))]
    for file, shard in zip(files, manifest["shards"][part]):
        if not file.is_file() or file.stat().st_size != shard["bytes"]:
            raise _broken(folder, f"{file.name} {'is not whole' if file.is_file() else 'is missing'}")
    return tuple(map(str, files))


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "manifest.json").is_file():
        raise UsageError(f"{folder}: there is no prepared data set in it. scripts/prepare.py --output={folder} makes one.")
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, f"manifest.json: {error}") from None
    if version != VERSION:
        raise TfrecError(f"{folder}: written in version {version}, this tfrec reads version {VERSION}. Prepare it again.")
    return manifest


def _broken(folder: Path, reason: str) -> TfrecError:
    return TfrecError(f"{folder}: cannot be read ({short(reason).rstrip('.')}). Prepare it again.")
