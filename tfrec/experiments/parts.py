"""A run's settings -> the parts that it is made of."""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError
from tfrec.experiments.config import Config
from tfrec.losses import Loss
from tfrec.models import Recommender
from tfrec.optimizers import Optimizer
from tfrec.training.settings import Training
from tfrec.training.steps import attach
from tfrec.training.trainer import Trainer


def make_model(train: Interactions, config: Config) -> Recommender:
    """Returns the model of the settings, made for the training rows.

    Raises:
        UsageError: It does not do the task, or the data lack what it needs.
    """
    part: type[Recommender] = config.parts["model"]
    with dashes():
        return part.from_data(train, config.task, config.get("seed", 0), **config.of(part))


def make_trained(train: Interactions, config: Config) -> Recommender:
    """Returns a model with its loss, as training begins with it; call it in the strategy's
    scope.
    """
    model = make_model(train, config)
    if not model.closed_form:
        with dashes():
            attach(model, make_loss(config), config.l2)
    return model


def make_trainer(strategy: tf.distribute.Strategy, model: Recommender, config: Config) -> Trainer:
    """Returns the trainer of the settings, with the loss that the model has."""
    values = config.of(Training)
    with dashes():
        trainer = Trainer(model, model.output.loss, make_optimizer(config), strategy, **values)
    trainer.evaluation = config.evaluation
    return trainer


@contextlib.contextmanager
def dashes() -> Iterator[None]:
    """Errors of the library name arguments; of a run they name flags."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"--{error}") from None


def make_loss(config: Config) -> Loss:
    """Returns the loss of the settings; call its `prepare` before it is used."""
    part = config.parts["loss"]
    return part(**config.of(part))


def make_optimizer(config: Config) -> Optimizer:
    """Returns the optimizer of the settings."""
    part = config.parts["optimizer"]
    return part(**config.of(part))
