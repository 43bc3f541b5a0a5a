"""The data that the settings name, made ready.

Read, split, and the settings with nothing left at auto.
"""

from typing import Any

from tfrec.config import AUTO, Config, DataConfig
from tfrec.data import disk, features, sources
from tfrec.data.dataset import Dataset
from tfrec.data.interactions import Split
from tfrec.errors import UsageError
from tfrec.experiments import workdirs
from tfrec.system.text import said
from tfrec.training import strategies


def load(config: Config) -> tuple[Split, Config]:
    """The split data, and the settings with nothing left at auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_folder(config)
    dataset = read(config)
    config = _resolved(config, dataset.catalog.rated, dataset.default_split)
    return dataset.split(config.data), config


def read(config: Config) -> Dataset:
    """The data before they are split, with what was left out of them on the console."""
    tables = sources.read(config.data)
    for note in tables.notes if strategies.is_chief(config.train.strategy) else ():
        print(said(note))
    return features.build(tables, config.data)


def _resolved(config: Config, rated: bool, split: str) -> Config:
    """The settings with nothing left at auto."""
    if config.model.task == "rating" and not rated:
        raise UsageError(
            "--task=rating: the data have no ratings. Take --task=ranking, or name their column "
            "with --rating_column."
        )
    auto: dict[str, Any] = {"split": split} if config.data.split == "auto" else {}
    defaults = AUTO[config.model.task]
    auto |= {n: value for n, value in defaults.items() if config.flat()[n] in ("auto", None)}
    if not config.workdir:
        auto["workdir"] = workdirs.default(config)
    return config.replace(**auto)


def _load_folder(config: Config) -> tuple[Split, Config]:
    """What scripts/prepare.py wrote."""
    folder = config.data.dataset.removeprefix("blocks:")
    split, default = disk.open_folder(folder), vars(DataConfig())
    fixed = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in disk.prepared_with(split).items()
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
    config = _resolved(config, split.catalog.rated, config.data.split)
    return split, config
