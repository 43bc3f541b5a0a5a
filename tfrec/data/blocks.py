"""A data set on disk, for more rows than fit into memory: a folder that scripts/prepare.py writes
(to_disk.py), and what reads it.

The rows lie in a TFDS data set (`tfds.builder_from_directory` reads it, too) with the splits train,
validation and test, each in file order. One example is a block of columns, BLOCK rows (the last one
of a split fewer): user, product int32 [n], rating f32 [n], and where there are timestamps,
timestamp int64 [n] and context f32 [n, C]. Columns are raw bytes: as TFDS' usual lists of numbers
they take seven times as long to write, and half as long again to read. SHARD blocks make a file,
the unit in which training rows are shuffled. Beside them lie

    manifest.json         version, names, settings, rows and bytes of each file, fingerprint, mean
    arrays.npz            features, user_features, offset, scale, default_context, user_counts,
                          product_counts
    user_ids.parquet      raw ids, one column
    product_ids.parquet   likewise
    products.parquet      the table for people
"""

import functools
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
TYPES = {
    "user": np.int32,
    "product": np.int32,
    "rating": np.float32,
    "timestamp": np.int64,
    "context": np.float32,
}
NAMES = (
    "name",
    "context_names",
    "feature_names",
    "user_feature_names",
    "rated",
)  # of Dataset, in the manifest
ARRAYS = (
    "features",
    "user_features",
    "offset",
    "scale",
    "default_context",
)  # of Dataset, in arrays.npz


@dataclass(frozen=True, eq=False)
class Stored:
    """All rows on disk.

    files: the shards of each of PARTS, in order. sizes: int64 [S], training rows in each.
    user_counts, product_counts: int64 [U], [P], training rows of each. mean: of their scaled
    targets. context_width: C; 0 where there are no timestamps. fingerprint: a number that changes
    with the rows and the features. manifest: what else is known; `settings` fixed the folder.
    """

    files: dict[str, tuple[str, ...]]
    sizes: np.ndarray
    user_counts: np.ndarray
    product_counts: np.ndarray
    mean: float
    context_width: int
    fingerprint: int
    manifest: dict[str, Any]

    @property
    def rating_range(self) -> tuple[float, float]:
        """The least and the greatest training rating."""
        return tuple(self.manifest["rating_range"])

    @property
    def target_range(self) -> tuple[float, float]:
        """The least and the greatest target."""
        return tuple(self.manifest["target_range"])

    @functools.cached_property
    def untrained(self) -> dict[str, float]:
        """{"user", "product".

        Share of the validation rows that are of one without training rows}.
        """
        counts, new = (
            {"user": self.user_counts, "product": self.product_counts},
            {"user": 0, "product": 0},
        )
        for chunk in self.chunks("validation"):
            for side, count in counts.items():
                new[side] += int(np.count_nonzero(count[chunk[side]] == 0))
        return {side: count / max(self.size("validation"), 1) for side, count in new.items()}

    def size(self, part: str = "train") -> int:
        """Rows of one of PARTS."""
        return sum(shard["rows"] for shard in self.manifest["shards"][part])

    def chunks(self, part: str = "train", times: bool = False) -> Iterator[dict[str, np.ndarray]]:
        """The blocks in order: user, product int32 [n], rating f32 [n], context f32 [n, C], and day
        int32 [n] where there is time.

        times: also timestamp int64 [n], 0 where there is no time.

        Raises:
            TfrecError: a file is broken.
        """
        yield from _blocks(self.files[part], self.context_width, times)

    def read(self, shards: tf.Tensor) -> dict[str, tf.Tensor]:
        """All training rows of some shards (their numbers, int64 [k]), with the columns of
        `chunks`; for use inside a graph.
        """
        with tf.init_scope():
            files = tf.constant(self.files["train"])
        records = tf.data.TFRecordDataset(tf.gather(files, shards), buffer_size=8 << 20)
        every = records.batch(tf.size(shards, tf.int64) * self.manifest["shard"])
        return _columns(every.get_single_element(), self.context_width)


def open(path: str | Path) -> Dataset:
    """The data set of a folder, with all rows on disk (`stored`) and none in memory.

    Raises:
        UsageError: it is no such folder. TfrecError: it is broken.
    """
    folder = Path(path).expanduser()
    manifest = _manifest(folder)
    try:
        with np.load(folder / "arrays.npz") as file:
            arrays = dict(file)
        ids = {
            name: pd.read_parquet(folder / f"{name}.parquet")["id"].to_numpy()
            for name in ("user_ids", "product_ids")
        }
        products = pd.read_parquet(folder / "products.parquet")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _broken(folder, str(error)) from None
    width = len(manifest["context_names"])
    rows: dict[str, Any] = {name: empty(name, width) for name in TYPES} | (
        {} if width else {"timestamp": None}
    )
    known: dict[str, Any] = {name: arrays[name] for name in ARRAYS} | ids | rows
    known |= {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in manifest.items()
        if name in NAMES
    }
    for name in products.select_dtypes(object):  # lists come back as arrays
        products[name] = products[name].map(
            lambda value: value.tolist() if isinstance(value, np.ndarray) else value
        )
    files = {part: _files(folder, part, manifest) for part in PARTS}
    sizes = np.array([shard["rows"] for shard in manifest["shards"]["train"]], np.int64)
    stored = Stored(
        files,
        sizes,
        arrays["user_counts"],
        arrays["product_counts"],
        manifest["mean"],
        width,
        manifest["fingerprint"],
        manifest,
    )
    return Dataset(**known, part=None, products=products, stored=stored)


def users_of(dataset: Dataset, part: str) -> np.ndarray:
    """Those with rows in one of PARTS, int [n]."""
    assert dataset.stored
    found = np.zeros(dataset.num_users, bool)
    for columns in dataset.stored.chunks(part):
        found[columns["user"]] = True
    return np.flatnonzero(found)


def with_rows(
    dataset: Dataset, users: np.ndarray, parts: tuple[str, ...] = PARTS
) -> tuple[Dataset, Rows]:
    """The data set of `open` with all rows of the users int [n] in its arrays, too, those of these
    parts.
    """
    assert dataset.stored
    chosen, sizes = np.isin(np.arange(dataset.num_users), users), []
    found: dict[str, list[np.ndarray]] = {
        name: [empty(name, dataset.stored.context_width)] for name in TYPES
    }
    for part in PARTS:
        chunks = dataset.stored.chunks(part, times=True) if part in parts else ()
        before = sum(map(len, found["user"]))
        for columns in tqdm(
            chunks, "reading", unit="block", delay=2, leave=False, disable=None, dynamic_ncols=True
        ):
            own = chosen[columns["user"]]
            for name, pieces in found.items():
                pieces.append(columns[name][own])
        sizes.append(sum(map(len, found["user"])) - before)
    joined: dict[str, Any] = {
        name: np.concatenate(found.pop(name)) for name in TYPES
    }  # pieces go as soon as they are joined
    if dataset.timestamp is None:
        joined["timestamp"] = None
    train, validation, test = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    return replace(dataset, **joined), Rows(train, validation, test)


def empty(name: str, width: int) -> np.ndarray:
    """A column without rows; width: of the context."""
    return np.zeros((0, width) if name == "context" else 0, TYPES[name])


def _blocks(
    files: tuple[str, ...], width: int, times: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    if not files:
        return
    records = tf.data.TFRecordDataset(list(files), buffer_size=8 << 20)
    try:
        yield from (
            records.map(lambda record: _columns(record[None], width, times))
            .prefetch(1)
            .as_numpy_iterator()
        )
    except (
        tf.errors.DataLossError,
        tf.errors.InvalidArgumentError,
        tf.errors.NotFoundError,
    ) as error:
        raise _broken(Path(files[0]).parent, error.message.split("}} ")[-1]) from None


def _columns(records: tf.Tensor, width: int, times: bool = False) -> dict[str, tf.Tensor]:
    """The columns of serialised blocks, string [k], one behind the other.

    Times: the timestamps, too.
    """
    names = [name for name in TYPES if width or name not in ("timestamp", "context")]
    raw = tf.io.parse_example(
        records, {name: tf.io.FixedLenFeature([], tf.string) for name in names}
    )
    columns = {
        name: tf.io.decode_raw(tf.strings.reduce_join(raw[name]), TYPES[name]) for name in names
    }
    columns["context"] = (
        tf.reshape(columns["context"], [-1, width])
        if width
        else tf.zeros([tf.size(columns["user"]), 0])
    )
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
            raise _broken(
                folder, f"{file.name} {'is not whole' if file.is_file() else 'is missing'}"
            )
    return tuple(map(str, files))


def unscaled(dataset: Dataset) -> Dataset:
    """A copy whose targets are the ratings."""
    stored = dataset.stored
    assert stored
    manifest = stored.manifest | {"target_range": stored.manifest["rating_range"]}
    mean = float(
        stored.mean * dataset.scale[0] + dataset.offset[0]
    )  # of standardised targets: one scale for all products
    return replace(
        dataset.with_scaling("none", np.arange(0)),
        stored=replace(stored, mean=mean, manifest=manifest),
    )


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder}: there is no prepared data set in it. scripts/prepare.py --output={folder} "
            "makes one."
        )
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        version = manifest["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _broken(folder, f"manifest.json: {error}") from None
    if version != VERSION:
        raise TfrecError(
            f"{folder}: written in version {version}, this tfrec reads version {VERSION}. Prepare "
            "it again."
        )
    return manifest


def _broken(folder: Path, reason: str) -> TfrecError:
    return TfrecError(f"{folder}: cannot be read ({short(reason).rstrip('.')}). Prepare it again.")
