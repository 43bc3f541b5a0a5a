"""A run's settings -> the parts that it is made of."""

from typing import Any

from tfrec import settings
from tfrec.config import Config
from tfrec.data.interactions import Interactions
from tfrec.losses import LOSSES, Loss
from tfrec.optimizers import OPTIMIZERS, Optimizer


def make_loss(config: Config) -> Loss:
    """The loss of the settings; call its `prepare` before it is used."""
    part = LOSSES[config.train.loss]
    return part(**_values(part, config))


def prepared_loss(config: Config, train: Interactions) -> Loss:
    """The loss of the settings for the training rows; call it in the strategy's scope.

    Raises:
        UsageError: The rows do not suit the loss.
    """
    loss = make_loss(config)
    loss.prepare(train)
    return loss


def make_optimizer(config: Config) -> Optimizer:
    """The optimizer of the settings."""
    part = OPTIMIZERS[config.train.optimizer]
    values = _values(part, config)
    if config.train.schedule == "constant":
        values.pop("decay")
    return part(**values)


def _values(part: type, config: Config) -> dict[str, Any]:
    """Those of the run's settings that the part has."""
    flat = config.flat()
    return {name: flat[name] for name in settings.fields(part) if name in flat}
