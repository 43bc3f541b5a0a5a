"""The model that is tested and exported, trained anew on training and validation rows: once the
validation rows have chosen the epochs, they need not be lost to it. Under a split by time they are
the freshest.
"""

from pathlib import Path

from tfrec.data.interactions import Split
from tfrec.experiments.config import Config
from tfrec.training.hooks import Checkpoints, Hook, ProgressBar, StopSignal
from tfrec.training.state import FitState
from tfrec.training.trainer import MOST_IN_GRAPH

FOLDER = "refit"  # of its checkpoints


def wanted(settings: Config, split: Split) -> bool:
    """Returns whether a run of these settings trains a model anew."""
    return (
        settings.refit == "validation"
        and len(split.validation) > 0
        and not why_not(settings, split)
    )


def why_not(settings: Config, split: Split) -> str:
    """Returns why these data are not trained on anew, or ""."""
    if not split.train.in_memory:
        return "rows on disk"
    rows = len(split.train) + len(split.validation)
    if settings.strategy_name == "parameter_server" and rows > MOST_IN_GRAPH:
        return f"more than {MOST_IN_GRAPH:,} rows for parameter servers"
    return ""


def hooks(folder: Path, epochs: int) -> list[Hook]:
    """Returns the hooks of the training, which lasts so many epochs."""
    return [StopSignal(), StopAfter(epochs), ProgressBar(), Checkpoints(folder / FOLDER)]


class StopAfter(Hook):
    """Ends a training after some epochs; its schedule is that of all epochs of the settings, which
    the Trainer has taken before any hook is asked.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def restore(self, fit: FitState) -> None:
        fit.epochs = min(fit.epochs, self.epochs)
