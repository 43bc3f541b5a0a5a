"""The data that the settings name, made ready: read, split, its targets scaled, and the settings with nothing left at auto."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from tfrec import workdirs
from tfrec.config import AUTO, Config, DataConfig
from tfrec.data import blocks, features, sources, splits, trained
from tfrec.data.dataset import Dataset
from tfrec.data.splits import Rows
from tfrec.errors import UsageError
from tfrec.training import strategies


def load(config: Config) -> tuple[Dataset, Rows, Config]:
    """The data set with its targets scaled, its rows, and the settings with nothing left at auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_blocks(config)
    tables = sources.read(config.data)
    for note in tables.notes if strategies.is_chief(config.train) else ():
        print(note)
    dataset = features.build(tables, config.data)
    config = _resolved(config, dataset, splits.default(dataset))
    rows = splits.split(dataset, config.data)
    return dataset.with_scaling(config.data.target_scaling, rows.train), rows, config


def _resolved(config: Config, dataset: Dataset, split: str) -> Config:
    """The settings with nothing left at auto."""
    if config.model.task == "rating" and not dataset.rated:
        raise UsageError("--task=rating: the data have no ratings. Take --task=ranking, or name their column with --rating_column.")
    auto: dict[str, Any] = {"split": split} if config.data.split == "auto" else {}
    auto |= {name: value for name, value in AUTO[config.model.task].items() if config.flat()[name] in ("auto", None)}
    if not config.workdir:
        name = Path(config.data.dataset.partition(":")[2] or config.data.dataset).name
        auto["workdir"] = workdirs.fresh(f"runs/{name}-{config.model.model}-{time.strftime('%Y%m%d-%H%M%S')}")
    return config.replace(**auto)


def _load_blocks(config: Config) -> tuple[Dataset, Rows, Config]:
    """What scripts/prepare.py wrote: the training rows stay on disk, but for those of the users that will be ranked."""
    folder = config.data.dataset.removeprefix("blocks:")
    dataset, rows, stored = blocks.open(folder)
    fixed, default = stored.manifest["settings"], vars(DataConfig())
    for name, value in vars(config.data).items():
        there = tuple(fixed[name]) if isinstance(fixed[name], list) else fixed[name]
        if name != "dataset" and value not in (default[name], there):
            raise UsageError(f"--{name}={value}: {folder} was prepared with {there}. Leave it out, or prepare another folder.")
    users = trained.some(np.unique(dataset.user), config.evaluation.ranked_users)
    dataset, rows = blocks.with_training_rows(dataset, rows, stored, users)
    return dataset, rows, _resolved(config, dataset, fixed["split"])
