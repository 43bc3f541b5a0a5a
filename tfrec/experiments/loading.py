"""The data that the settings name, made ready.

Read, split, and the settings with nothing left at auto.
"""

from typing import Any

from tfrec.data import disk, sources
from tfrec.data.dataset import Dataset
from tfrec.data.interactions import Split
from tfrec.errors import UsageError
from tfrec.experiments import workdirs
from tfrec.experiments.config import Config
from tfrec.system.text import said
from tfrec.training import strategies
from tfrec.training.steps import DEFAULT_L2


def load(config: Config) -> tuple[Split, Config]:
    """Returns the split data, and the settings with nothing left at auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_folder(config)
    dataset = read(config)
    config = _resolved(config, dataset.catalog.rated, dataset.default_split)
    return dataset.split_by(config.data), config


def read(config: Config) -> Dataset:
    """Returns the data before they are split, with what was left out of them on the console."""
    tables = sources.read(config.data)
    for note in tables.notes if strategies.is_chief(config.strategy_name) else ():
        print(said(note))
    return Dataset.from_tables(tables, config.data)


def _resolved(config: Config, rated: bool, split: str) -> Config:
    """Returns the settings with nothing left at auto."""
    if config.task == "rating" and not rated:
        raise UsageError(
            "--task=rating: the data have no ratings. Take --task=ranking, or name their column "
            "with --rating_column."
        )
    if config.split == "auto":
        config = _with_split(config, split)
    auto: dict[str, Any] = {}
    if config.trained and config.l2 is None:
        auto["l2"] = DEFAULT_L2[config.task]
    if not config.workdir:
        auto["workdir"] = workdirs.default(config)
    return config.replace(**auto)


def _with_split(config: Config, split: str) -> Config:
    try:
        return config.replace(split=split)
    except UsageError as error:
        raise UsageError(f"{error} With these data --split=auto is {split}.") from None


def _load_folder(config: Config) -> tuple[Split, Config]:
    """Loads what scripts/prepare.py wrote."""
    folder = config.data.dataset.removeprefix("blocks:")
    split = disk.open_folder(folder)
    known = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in disk.prepared_with(split).items()
        if name != "dataset"
    }
    if config.split not in ("auto", known["split"]):
        raise UsageError(
            f"--split={config.split}: {folder} was prepared with {known['split']}. Leave it out, "
            "or prepare another folder."
        )
    config = config.replace(split=known["split"]).with_prepared(known)
    config = _resolved(config, split.catalog.rated, str(known["split"]))
    return split, config
