"""The data that the settings name, made ready.

Read, split, and the settings with nothing left at auto.
"""

from typing import Any

import numpy as np

from tfrec.data import disk, sources
from tfrec.data.dataset import Dataset
from tfrec.data.interactions import Interactions, Split
from tfrec.errors import UsageError
from tfrec.experiments import picks, workdirs
from tfrec.experiments.config import Config, model_class
from tfrec.losses.ranking import suited
from tfrec.system.text import said
from tfrec.training import strategies


def load(config: Config) -> tuple[Split, Config]:
    """Returns the split data, and the settings with nothing left at auto."""
    if config.data.dataset.startswith("blocks:"):
        return _load_folder(config)
    dataset = read(config)
    config = _resolved(config, dataset.catalog.rated, dataset.default_split)
    config = _as_asked(config, dataset.interactions.timed)
    split = dataset.split_by(config.data)
    config = _suited(split.train, config)
    _warn(split.train, config)
    return split, config


def _suited(train: Interactions, config: Config) -> Config:
    """Returns the settings with what the training rows decide; validation rows pick the others."""
    unset = {name for name, value in config.values.items() if value is None}
    unset -= picks.left_open(config).keys()
    found = {name: value for name, value in suited(train).items() if name in unset}
    return config.replace(**found)


def _as_asked(config: Config, timed: bool) -> Config:
    """Returns the settings; rows that validate are cut as those of NCF's files were, unless the
    user says how.
    """
    data, unsaid = config.data, "validation_rule" not in config.given
    cut = data.split == "files" and data.validation_fraction and not data.validation_file
    if config.evaluation.candidates_file and cut and timed and unsaid:
        return config.replace(validation_rule="leave_one_out")
    return config


def _warn(train: Interactions, config: Config) -> None:
    """Says what a user may not expect of the training rows."""
    if not strategies.is_chief(config.strategy_name):
        return
    share = np.mean(train.columns()["rating"] == 0) if train.in_memory else 0
    if config.task == "ranking" and share > 0.5 and not config.values.get("confidence_power"):
        print(
            f"note: {100 * share:.0f} % of the training ratings are 0, and count as likes. "
            "--positive_from=1 trains on the others alone"
        )
    model = model_class(config.model, config.task)
    if train.catalog.weighted and config.task not in model.takes_weights:
        print(f"note: --model={config.model} does not use the rows' weights")


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
    if config.data.positive_from is not None and config.task == "rating":
        raise UsageError("--positive_from: it goes with --task=ranking, where rows are likes.")
    if config.data.positive_from is not None and not rated:
        raise UsageError("--positive_from: the data have no ratings.")
    if config.split == "auto":
        config = _with_split(config, split)
    auto: dict[str, Any] = {}
    if not config.workdir:
        auto["workdir"] = workdirs.default(config)
    if config.data.positive_from is not None and config.evaluation.relevance_threshold is None:
        auto["relevance_threshold"] = config.data.positive_from
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
    config = _suited(split.train, config)
    _warn(split.train, config)
    return split, config
