"""Any source -> a folder of blocks (see blocks.py), in memory that does not grow with the rows but
for what the split needs.

First pass: the source is read piece by piece. Each row goes to a spool on disk, its ids as numbers
in order of appearance, so that the source is read, and its bad rows are told, once. Then the ids
are sorted, repeated rows are found, some users after the others, and the split is drawn: exactly as
in memory. Second pass: the spool becomes blocks. A synthetic world needs no spool: it is drawn
twice.

Memory: each different id about 200 bytes while the source is read; then a byte a row for its part,
a byte if there are repeated rows, and what splits.py says. Disk: the blocks (12 bytes a row, with
timestamps 20 and 4 a context column) and as much again for the spool, which goes at the end.
"""

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data import features, sources, splits, to_disk
from tfrec.data.catalog import Catalog
from tfrec.data.settings import DataSettings
from tfrec.data.sources.synthetic import SIGMA, World
from tfrec.data.tables import as_ids
from tfrec.errors import TfrecError, UsageError, reason
from tfrec.system.locked import locked
from tfrec.system.progress import bar
from tfrec.system.text import said

AT_ONCE = 2**20  # rows of a piece of the spool
SORTED = 2**23  # rows that are searched for repeated ones together
TYPES = {
    "user": np.int32,
    "product": np.int32,
    "rating": np.float32,
    "timestamp": np.int64,
    "part": np.int8,
}

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """A source whose rows can be read again and again.

    Args:
        count: Number of rows.
        pieces: Yields, from the first row on, user, product (positions), rating, and timestamp and
            part where there are such.
        catalog: Users and products.
        notes: What was left out.
        more: What the manifest says besides.
    """

    count: int
    pieces: Callable[[], Iterator[Columns]]
    catalog: Catalog
    notes: list[str]
    more: dict[str, Any]


def prepare(
    config: DataSettings,
    output: Path,
    world: World | None = None,
    sizes: to_disk.Sizes = to_disk.Sizes(),  # noqa: B008  (frozen)
) -> str:
    """Writes the data set that the settings name (or the world) to a folder.

    Returns:
        What is in it, for people.

    Raises:
        UsageError: The folder is there already, another process writes it, or as sources.read and
            splits.split_rows.
        TfrecError: The source is malformed, or the folder cannot be written. Nothing is left
            behind.
    """
    with _draft(output.expanduser()) as draft:
        source = _drawn(world, config) if world else _spooled(config, draft / "spool")
        if config.split == "auto":
            timed = bool(source.catalog.context_names) and not world
            config = dataclasses.replace(config, split="user_temporal" if timed else "random")
        part = _parts(source, config)
        rows = (
            (columns, part[start : start + len(columns["user"])])
            for start, columns in _counted(source, "writing")
        )
        manifest = to_disk.write(draft, source.catalog, rows, config, sizes) | source.more
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        shutil.rmtree(draft / "spool", ignore_errors=True)
        size = sum(file.stat().st_size for file in draft.iterdir())
    train, validation, test = (np.count_nonzero(part == number) for number in range(3))
    return "\n".join(
        [
            *map(said, source.notes),
            f"{said(str(output))}: {source.catalog.num_users:,} users, "
            f"{source.catalog.num_products:,} products, {size / 1e9:,.2f} GB",
            f"split {config.split}: {train:,} rows to train, {validation:,} to validate, {test:,} "
            "to test",
        ]
    )


@contextlib.contextmanager
def _draft(output: Path) -> Iterator[Path]:
    """A folder that becomes `output` in the end, or nothing.

    What a killed process left of one is removed.
    """
    if output.exists():
        raise UsageError(
            f"--output={output}: it is there already. Take another folder, or remove it."
        )
    draft = output.with_name(f"{output.name}.draft")
    with locked(draft, f"--output={output}", "is writing it"):
        mark = draft / ".tfrec-draft"
        if any(draft.iterdir()) and not mark.exists():
            raise UsageError(
                f"--output={output}: {draft} is needed, and holds something else. Take another "
                "folder, or remove that one."
            )
        with _whole_or_not(draft, output):
            mark.touch()
            for left in (path for path in draft.iterdir() if path != mark):
                shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield draft
            mark.unlink()


@contextlib.contextmanager
def _whole_or_not(draft: Path, output: Path) -> Iterator[None]:
    """The draft takes the name `output`, or goes."""
    try:
        yield
        draft.rename(output)
        return
    except (OSError, tf.errors.OpError) as error:
        raise TfrecError(f"--output={output}: cannot be written ({reason(error)}).") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; nothing was left behind. The same command starts again."
        ) from None
    finally:
        if not output.exists():
            shutil.rmtree(draft, ignore_errors=True)


def _drawn(world: World, config: DataSettings) -> Source:
    ids = np.arange(world.users), np.arange(world.products)
    catalog, _ = features.build(world.tables(_everyone(*ids, ["rating", "timestamp"])), config)
    more = {"world": dataclasses.asdict(world), "noise_floor": SIGMA}
    return Source(world.rows, world.blocks, catalog, [], more)


def _spooled(config: DataSettings, folder: Path) -> Source:
    spool = _ColumnStore(folder)
    stream = sources.stream(config, folder)
    users, products = _Vocabulary(), _Vocabulary()
    with bar(desc="reading", unit="row", unit_scale=True) as shown:
        for piece in stream.pieces:
            table = piece.interactions
            columns = {
                name: table[name].to_numpy() for name in ("rating", "timestamp") if name in table
            }
            columns["user"] = users.codes_of(table["user"].to_numpy(), "user" in piece.texts)
            columns["product"] = products.codes_of(
                table["product"].to_numpy(), "product" in piece.texts
            )
            if config.split == "files":
                columns["part"] = np.full(len(table), piece.part)
            spool.append(columns)
            shown.update(len(table))
    tables = stream.tables(_everyone(users.ids(), products.ids(), spool.names))
    notes, (catalog, _) = stream.notes, features.build(tables, config)
    dropped = _repeated(spool, config, notes)
    of_user = _positions(users.ids(), catalog.user_ids)
    of_product = _positions(products.ids(), catalog.product_ids)

    def pieces() -> Iterator[Columns]:
        for start, columns in spool.pieces(spool.names):
            columns["user"] = of_user[columns["user"]]
            columns["product"] = of_product[columns["product"]]
            if "rating" not in columns:
                columns["rating"] = np.ones(len(columns["user"]), np.float32)
            if dropped is not None:
                kept = ~dropped[start : start + len(columns["user"])]
                columns = {name: column[kept] for name, column in columns.items()}
            yield columns

    count = spool.count - (0 if dropped is None else int(dropped.sum()))
    return Source(count, pieces, catalog, notes, {})


def _everyone(user_ids: np.ndarray, product_ids: np.ndarray, columns: list[str]) -> pd.DataFrame:
    """As few interactions as hold every user and product, with rating and timestamp where they are
    among the columns.
    """
    count = max(len(user_ids), len(product_ids))
    table = pd.DataFrame(
        {"user": np.resize(user_ids, count), "product": np.resize(product_ids, count)}
    )
    return table.assign(
        **{
            name: np.zeros(count, TYPES[name])
            for name in ("rating", "timestamp")
            if name in columns
        }
    )


def _positions(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Returns where each of the ids stands in `known`, which may have them as texts: int32."""
    if ids.dtype != known.dtype:
        ids = ids.astype(str).astype(object)
    return pd.Index(known).get_indexer(pd.Index(ids)).astype(np.int32)


def _parts(source: Source, config: DataSettings) -> np.ndarray:
    """Returns each row's place in PARTS, int8 [N]."""
    held = {name: np.empty(source.count, TYPES[name]) for name in splits.needs(config)}
    if not source.catalog.context_names:
        held.pop("timestamp", None)
    if held:
        for start, columns in _counted(source, "dividing"):
            for name, column in held.items():
                column[start : start + len(columns["user"])] = columns[name]
    known = splits.Columns(source.count, source.catalog.num_products, **held)
    _, validation, test = splits.split_rows(known, config)
    part = np.zeros(source.count, np.int8)
    part[validation], part[test] = 1, 2
    return part


def _counted(source: Source, what: str) -> Iterator[tuple[int, Columns]]:
    """(rows before it, piece), with a bar."""
    with bar(desc=what, total=source.count, unit="row", unit_scale=True) as shown:
        before = 0
        for columns in source.pieces():
            yield before, columns
            before += len(columns["user"])
            shown.update(len(columns["user"]))


def _repeated(spool: "_ColumnStore", config: DataSettings, notes: list[str]) -> np.ndarray | None:
    """Returns which rows are not kept of a user and product that have several (as tables.distinct),
    bool [N]; None: all are.

    With --duplicates=mean the rating of the row that is kept becomes the mean. Exact: some users
    after the others, SORTED rows at once.
    """
    dropped: np.ndarray | None = None
    first = spool.count
    groups = -(-spool.count // SORTED)
    names = [name for name in spool.names if name in ("user", "product", "part")]
    for group in range(groups):
        rows: list[np.ndarray] = []
        found: Any = {name: [] for name in names}
        for start, columns in spool.pieces(names):
            chosen = np.flatnonzero(columns["user"] % groups == group)
            rows.append(start + chosen)
            for name in names:
                found[name].append(columns[name][chosen])
        of_rows = {name: np.concatenate(column).astype(np.int64) for name, column in found.items()}
        key = (
            (of_rows["user"] << 31)
            + of_rows["product"]
            + (of_rows["part"] << 61 if "part" in of_rows else 0)
        )
        in_order = np.sort(key)
        again = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
        if not len(again):
            continue
        several = np.isin(key, again)
        where, key = np.concatenate(rows)[several], key[several]
        table = pd.DataFrame(
            {"key": key}
            | {
                name: spool.at(name, where)
                for name in ("timestamp", "rating")
                if name in spool.names
            },
            where,
        )
        first = min(first, int(table.index[table.duplicated("key")][0]))
        by_time = table.sort_values("timestamp", kind="stable") if "timestamp" in table else table
        kept = by_time.drop_duplicates("key", keep="last")
        if config.duplicates == "mean" and "rating" in table:
            means = table.astype({"rating": float}).groupby("key")["rating"].transform("mean")
            spool.put("rating", kept.index.to_numpy(), means[kept.index].to_numpy(np.float32))
        dropped = np.zeros(spool.count, bool) if dropped is None else dropped
        dropped[table.index.difference(kept.index)] = True
    if dropped is None:
        return None
    if config.duplicates == "error":
        with tempfile.TemporaryDirectory(dir=spool.folder) as folder:
            raise TfrecError(_told(config, first, Path(folder)))
    kind = "the latest row" + (
        " with the mean rating" if config.duplicates == "mean" and "rating" in spool.names else ""
    )
    notes.append(f"{int(dropped.sum()):,} rows repeat a user and product; kept {kind} of each")
    return dropped


def _told(config: DataSettings, number: int, folder: Path) -> str:
    """Returns the complaint about the row of this number in all files together, from 0."""
    for piece in sources.stream(config, folder).pieces:
        if number < len(piece.interactions):
            row, at = piece.interactions.iloc[number], piece.interactions.index[number]
            break
        number -= len(piece.interactions)
    pair = f"user {row['user']} and product {row['product']}"
    return (
        f"{piece.file}, row {piece.row(at):,}: {pair} stand in an earlier row, too. "
        "--duplicates=last keeps the latest, mean the mean."
    )


class _Vocabulary:
    """Numbers ids in order of appearance."""

    def __init__(self) -> None:
        self.codes: defaultdict[Any, int] = defaultdict()
        self.codes.default_factory = self.codes.__len__
        self.texts = False

    def codes_of(self, values: np.ndarray, texts: bool) -> np.ndarray:
        """int32 [n]. texts: ids of type object are no numbers, whatever they look like."""
        self.texts |= texts and values.dtype == object
        codes, unique = pd.factorize(values)
        return np.fromiter(map(self.codes.__getitem__, unique.tolist()), np.int32, len(unique))[
            codes
        ]

    def ids(self) -> np.ndarray:
        """int64 where all are whole numbers, else texts (object).

        Twice the same where one file had a number and another one a text.
        """
        if all(isinstance(value, int) for value in self.codes):
            return np.array(list(self.codes), np.int64)
        texts = [str(value) for value in self.codes]
        return np.array(texts, dtype=object) if self.texts else as_ids(texts)


class _ColumnStore:
    """Columns of rows in a folder, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.names = folder, 0, []  # type: Path, int, list[str]
        folder.mkdir()

    def append(self, columns: Columns) -> None:
        self.names = list(columns)
        for name, column in columns.items():
            with (self.folder / name).open("ab") as file:
                file.write(
                    np.ascontiguousarray(column, TYPES[name]).data
                )  # tofile does not say why it cannot
        self.count += len(columns["user"])

    def pieces(self, names: list[str]) -> Iterator[tuple[int, Columns]]:
        """(rows before it, its columns)."""
        for start in range(0, self.count, AT_ONCE):
            yield (
                start,
                {
                    name: np.fromfile(
                        self.folder / name, TYPES[name], AT_ONCE, offset=start * self._bytes(name)
                    )
                    for name in names
                },
            )

    def at(self, name: str, rows: np.ndarray) -> np.ndarray:
        return np.memmap(self.folder / name, TYPES[name], "r")[rows]

    def put(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        np.memmap(self.folder / name, TYPES[name], "r+")[rows] = values

    def _bytes(self, name: str) -> int:
        return np.dtype(TYPES[name]).itemsize
