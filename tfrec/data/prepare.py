"""Any source -> a folder of blocks (see disk.py), by way of a table of DuckDB that lies beside them
until they are written.

Memory: what DuckDB may take, about 200 bytes for each different id, and five bytes a row for its
part. Disk: the blocks (12 bytes a row, with timestamps 20 and 4 a context column), and about as
much again for the table.
"""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec.data import features, ingest, sources, splits, to_disk
from tfrec.data.ingest import Rows, Tables
from tfrec.data.interactions import Columns
from tfrec.data.reading import database, enough
from tfrec.data.settings import DataSettings
from tfrec.data.sources.synthetic import SIGMA, SyntheticData
from tfrec.errors import TfrecError, UsageError, reason
from tfrec.system.locked import locked
from tfrec.system.progress import bar
from tfrec.system.text import said


def prepare(
    config: DataSettings,
    output: Path,
    world: SyntheticData | None = None,
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
    with _draft(output.expanduser()) as draft, enough(config.memory_limit):
        rows = draft / "rows"
        rows.mkdir()
        tables = _drawn(world, rows, config) if world else sources.read(config, rows)
        catalog = features.build(tables, config)
        if config.split == "auto":
            timed = bool(catalog.context_names) and not world
            config = dataclasses.replace(config, split="user_temporal" if timed else "random")
        part = splits.divide(tables.rows.to_split(), config)
        if config.positive_from is not None:
            rated = "rating" in tables.rows.names
            ratings = tables.rows.columns(["rating"])["rating"] if rated else None
            part = splits.without_disliked(part, ratings, config.positive_from)
        manifest = to_disk.write(draft, catalog, _with_parts(tables.rows, part), config, sizes)
        if world:
            manifest |= {"world": dataclasses.asdict(world), "noise_floor": SIGMA}
        (draft / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
        tables.rows.con.close()
        shutil.rmtree(rows)
        size = sum(file.stat().st_size for file in draft.iterdir())
    train, validation, test = (np.count_nonzero(part == number) for number in range(3))
    return "\n".join(
        [
            *map(said, tables.notes),
            f"{said(str(output))}: {catalog.num_users:,} users, "
            f"{catalog.num_products:,} products, {size / 1e9:,.2f} GB",
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


def _drawn(world: SyntheticData, folder: Path, config: DataSettings) -> Tables:
    """Returns the tables of a world, whose rows lie in the folder."""
    ids = {"user": np.arange(world.users), "product": np.arange(world.products)}
    blocks = (block for _, block in _counted(world.blocks(), world.rows, "drawing"))
    con = database(folder, config.memory_limit)
    return Tables(ingest.of_blocks(con, blocks, ids), world.table())


def _with_parts(rows: Rows, part: np.ndarray) -> Iterator[tuple[Columns, np.ndarray]]:
    """Yields (columns, the part of each row)."""
    pieces = rows.pieces(["user", "product", *rows.names])
    for start, columns in _counted(pieces, len(part), "writing"):
        count = len(columns["user"])
        columns.setdefault("rating", np.ones(count, np.float32))
        yield columns, part[start : start + count]


def _counted(pieces: Iterable[Columns], total: int, what: str) -> Iterator[tuple[int, Columns]]:
    """Yields (rows before it, piece), with a bar."""
    with bar(desc=what, total=total, unit="row", unit_scale=True) as shown:
        before = 0
        for columns in pieces:
            yield before, columns
            before += len(columns["user"])
            shown.update(len(columns["user"]))
