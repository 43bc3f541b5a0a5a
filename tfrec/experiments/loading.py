"""The data that the settings name, made ready.

Read, split, its targets scaled, and the settings with nothing left at auto.
"""

from typing import Any

import numpy as np

from tfrec.config import AUTO, Config, DataConfig
from tfrec.data import blocks, features, sources, splits, trained
from tfrec.data.dataset import Dataset
from tfrec.data.splits import Rows
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError
from tfrec.experiments import workdirs
from tfrec.system.text import said
from tfrec.training import strategies


def load(config: Config) -> tuple[Dataset, Rows, Config]:
    """The data set with its targets scaled, its rows, and the settings without auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_blocks(config)
    tables = sources.read(config.data)
    for note in tables.notes if strategies.is_chief(config.train) else ():
        print(said(note))
    dataset = features.build(tables, config.data)
    config = _resolved(config, dataset, splits.default(dataset))
    rows = splits.split(dataset, config.data)
    return dataset.with_scaling(_scaling(config), rows.train), rows, config


def _scaling(config: Config) -> str:
    """How targets are scaled.

    A ranking run has none to standardise, and its models read the ratings as they are.
    """
    how = config.data.target_scaling
    return "none" if how == "standard" and config.model.task == "ranking" else how


def _resolved(config: Config, dataset: Dataset, split: str) -> Config:
    """The settings with nothing left at auto."""
    if config.model.task == "rating" and not dataset.rated:
        raise UsageError(
            "--task=rating: the data have no ratings. Take --task=ranking, or name their column "
            "with --rating_column."
        )
    auto: dict[str, Any] = {"split": split} if config.data.split == "auto" else {}
    auto |= {
        name: value
        for name, value in AUTO[config.model.task].items()
        if config.flat()[name] in ("auto", None)
    }
    if not config.workdir:
        auto["workdir"] = workdirs.default(config)
    return config.replace(**auto)


def _load_blocks(config: Config) -> tuple[Dataset, Rows, Config]:
    """What scripts/prepare.py wrote.

    The rows stay on disk, but for those of the users of whom there will be metrics.
    """
    folder = config.data.dataset.removeprefix("blocks:")
    dataset = blocks.open(folder)
    assert dataset.stored
    there, default = dataset.stored.manifest["settings"], vars(DataConfig())
    fixed = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in there.items()
        if name != "dataset"
    }
    for name, value in fixed.items():
        given = vars(config.data)[name]
        if given not in (default[name], value):
            raise UsageError(
                f"--{name}={given}: {folder} was prepared with {value}. Leave it out, or prepare "
                "another folder."
            )
    config = config.replace(**fixed)
    most, count = config.evaluation.ranked_users, dataset.num_users
    validated, tested = (
        trained.some(blocks.users_of(dataset, part), most, count) for part in PARTS[1:]
    )
    dataset, rows = blocks.with_rows(dataset, np.union1d(validated, tested))
    config = _resolved(config, dataset, config.data.split)
    return (
        dataset if _scaling(config) == config.data.target_scaling else blocks.unscaled(dataset),
        rows,
        config,
    )
