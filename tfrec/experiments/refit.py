"""Models that are trained anew on more rows: once the validation rows have chosen the epochs, they
need not be lost to the model that is tested and exported, and once the test is made, the tested
rows need not be lost to the one that is exported. Under a split by time they are the freshest.
"""

from pathlib import Path

from tfrec.data.interactions import Split
from tfrec.experiments.config import Config
from tfrec.training.hooks import Checkpoints, Hook, ProgressBar, StopSignal
from tfrec.training.state import FitState
from tfrec.training.trainer import MOST_IN_GRAPH

# of the rows that are added: the folder of checkpoints, and the name in metrics.json
NAMES = {"validation": "refit", "test": "refit_all"}


def wanted(settings: Config, split: Split, part: str) -> bool:
    """Returns whether a run of these settings trains a model anew on the rows of a part,
    "validation" or "test", too.
    """
    asked = settings.refit == "all" or (settings.refit == "validation" and part == "validation")
    return asked and len(getattr(split, part)) > 0 and not why_not(settings, split)


def why_not(settings: Config, split: Split) -> str:
    """Returns why these data are not trained on anew, or ""."""
    if not split.train.in_memory:
        return "rows on disk"
    rows = len(split.train) + len(split.validation)
    rows += len(split.test) if settings.refit == "all" else 0
    if settings.strategy_name == "parameter_server" and rows > MOST_IN_GRAPH:
        return f"more than {MOST_IN_GRAPH:,} rows for parameter servers"
    return ""


def hooks(folder: Path, epochs: int) -> list[Hook]:
    """Returns the hooks of a training that lasts so many epochs; folder: of its checkpoints."""
    return [StopSignal(), StopAfter(epochs), ProgressBar(), Checkpoints(folder)]


class StopAfter(Hook):
    """Ends a training after some epochs; its schedule is that of all epochs of the settings, which
    the Trainer has taken before any hook is asked.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def restore(self, fit: FitState) -> None:
        fit.epochs = min(fit.epochs, self.epochs)
