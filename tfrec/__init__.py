"""tfrec: recommender systems in plain TensorFlow, with a training loop that you own.

Example:
    >>> data = tfrec.load("latest-small")
    >>> split = data.split("user_temporal")
    >>> model = tfrec.models.MatrixFactorization.from_data(split.train, task="ranking")
    >>> tfrec.Trainer(model).fit(split.train, split.validation, epochs=10)
    >>> print(tfrec.evaluate(model, split, baselines=True))
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfrec.system import quiet

if TYPE_CHECKING:
    from tfrec import data, layers, losses, models, optimizers
    from tfrec.data.dataset import Dataset, load, read
    from tfrec.data.interactions import Interactions, Split
    from tfrec.errors import Diverged, Preempted, TfrecError, UsageError
    from tfrec.evaluation import metrics
    from tfrec.evaluation.results import evaluate
    from tfrec.experiments.run import Run
    from tfrec.experiments.run import train_with as train
    from tfrec.models.base import Recommender
    from tfrec.serving.recommend import export, recommend
    from tfrec.settings import setting
    from tfrec.training import hooks
    from tfrec.training.trainer import Trainer

# name: (module, name there; "" for the module itself)
_PUBLIC = {
    "Dataset": ("tfrec.data.dataset", "Dataset"),
    "Diverged": ("tfrec.errors", "Diverged"),
    "Interactions": ("tfrec.data.interactions", "Interactions"),
    "Preempted": ("tfrec.errors", "Preempted"),
    "Recommender": ("tfrec.models.base", "Recommender"),
    "Run": ("tfrec.experiments.run", "Run"),
    "Split": ("tfrec.data.interactions", "Split"),
    "TfrecError": ("tfrec.errors", "TfrecError"),
    "Trainer": ("tfrec.training.trainer", "Trainer"),
    "UsageError": ("tfrec.errors", "UsageError"),
    "data": ("tfrec.data", ""),
    "evaluate": ("tfrec.evaluation.results", "evaluate"),
    "export": ("tfrec.serving.recommend", "export"),
    "hooks": ("tfrec.training.hooks", ""),
    "layers": ("tfrec.layers", ""),
    "load": ("tfrec.data.dataset", "load"),
    "losses": ("tfrec.losses", ""),
    "metrics": ("tfrec.evaluation.metrics", ""),
    "models": ("tfrec.models", ""),
    "optimizers": ("tfrec.optimizers", ""),
    "read": ("tfrec.data.dataset", "read"),
    "recommend": ("tfrec.serving.recommend", "recommend"),
    "setting": ("tfrec.settings", "setting"),
    "train": ("tfrec.experiments.run", "train_with"),
}

_WITHOUT_TENSORFLOW = ("tfrec.errors", "tfrec.settings")

__all__ = [
    "Dataset",
    "Diverged",
    "Interactions",
    "Preempted",
    "Recommender",
    "Run",
    "Split",
    "TfrecError",
    "Trainer",
    "UsageError",
    "data",
    "evaluate",
    "export",
    "hooks",
    "layers",
    "load",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "read",
    "recommend",
    "setting",
    "train",
]


def __getattr__(name: str) -> Any:
    """Returns a public name, whose room is loaded when it is first asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tfrec' has no attribute {name!r}")
    module, inside = _PUBLIC[name]
    if module not in _WITHOUT_TENSORFLOW:
        quiet.import_tensorflow()
    found = importlib.import_module(module)
    return getattr(found, inside) if inside else found


def __dir__() -> list[str]:
    return __all__
