"""A run's settings -> the parts that it is made of."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfrec import settings
from tfrec.config import Config
from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError, nearest
from tfrec.losses import LOSSES, Loss
from tfrec.models import MODELS, Recommender
from tfrec.optimizers import OPTIMIZERS, Optimizer
from tfrec.training.steps import attach
from tfrec.training.trainer import Trainer


def model_class(config: Config) -> type[Recommender]:
    """The model of the settings.

    Raises:
        UsageError: There is no such model, or it does not do the task.
    """
    name, task = config.model.model, config.model.task
    if name not in MODELS:
        raise UsageError(
            f"--model={name}: expected one of {', '.join(MODELS)}.{nearest(name, MODELS)}"
        )
    part = MODELS[name]
    if task not in part.tasks:
        raise UsageError(f"--model={name} --task={task}: {name} only does --task={part.tasks[0]}.")
    return part


def make_model(train: Interactions, config: Config) -> Recommender:
    """The model of the settings, made for the training rows.

    Raises:
        UsageError: It does not do the task, or the data lack what it needs.
    """
    part = model_class(config)
    values = _values(part, config)
    if not config.model.terms:
        values.pop("terms", None)
    if "target_scaling" in values:  # of content, which reads the ratings as they are
        values["target_scaling"] = values["target_scaling"].replace("standard", "none")
    with _dashes():
        return part.from_data(train, config.model.task, **values)


def make_trained(train: Interactions, config: Config) -> Recommender:
    """A model with its loss, as training begins with it; call it in the strategy's scope."""
    model = make_model(train, config)
    if not model.closed_form:
        with _dashes():
            attach(model, make_loss(config), config.train.l2 or 0.0)
    return model


def make_trainer(strategy: tf.distribute.Strategy, model: Recommender, config: Config) -> Trainer:
    """The trainer of the settings, with the loss that the model has."""
    values = _values(Trainer, config)
    with _dashes():
        trainer = Trainer(model, model.output.loss, make_optimizer(config), strategy, **values)
    trainer.evaluation = dataclasses.replace(config.evaluation, candidates_file="")
    return trainer


@contextlib.contextmanager
def _dashes() -> Iterator[None]:
    """Errors of the library name arguments; of a run they name flags."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"--{error}") from None


def make_loss(config: Config) -> Loss:
    """The loss of the settings; call its `prepare` before it is used."""
    part = LOSSES[config.train.loss]
    return part(**_values(part, config))


def prepared_loss(config: Config, train: Interactions) -> Loss:
    """The loss of the settings for the training rows; call it in the strategy's scope.

    Raises:
        UsageError: The rows do not suit the loss.
    """
    with _dashes():
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
