"""Batch -> score. The table of models: to add one, write its file and its line here."""

from collections.abc import Callable

import numpy as np

from tfrec.config import ModelConfig
from tfrec.data import trained
from tfrec.data.dataset import Dataset
from tfrec.errors import UsageError, nearest
from tfrec.models.base import Recommender
from tfrec.models.content import Content
from tfrec.models.ease import Ease
from tfrec.models.hybrid import Hybrid
from tfrec.models.ials import ImplicitALS
from tfrec.models.knowledge import Knowledge
from tfrec.models.mf import MatrixFactorization
from tfrec.models.ncf import NeuralCF
from tfrec.models.neighbours import ItemKNN, UserKNN
from tfrec.models.popularity import Popularity

OF_ALL_ROWS = {"session", "rated", "raters"}  # terms that read them, in memory at once

# name: (class, what makes one from the data, its training rows, their mean target and the settings)
MODELS: dict[
    str, tuple[type[Recommender], Callable[[Dataset, np.ndarray, float, ModelConfig], Recommender]]
] = {
    "popularity": (
        Popularity,
        lambda data, rows, mean, c: Popularity(data.num_users, data.num_products, c.task),
    ),
    "content": (Content, lambda data, rows, mean, c: Content(data.num_users, data.features)),
    "knowledge": (
        Knowledge,
        lambda data, rows, mean, c: Knowledge(data.user_features, data.num_products, c.task),
    ),
    "item_knn": (
        ItemKNN,
        lambda data, rows, mean, c: ItemKNN(
            data.num_users,
            data.num_products,
            trained.size(data, rows),
            c.task,
            c.neighbours,
            c.shrinkage,
        ),
    ),
    "user_knn": (
        UserKNN,
        lambda data, rows, mean, c: UserKNN(
            data.num_users,
            data.num_products,
            trained.size(data, rows),
            c.task,
            c.neighbours,
            c.shrinkage,
        ),
    ),
    "ease": (
        Ease,
        lambda data, rows, mean, c: Ease(
            data.num_users, data.num_products, trained.size(data, rows), c.ease_l2, c.rating_power
        ),
    ),
    "ials": (
        ImplicitALS,
        lambda data, rows, mean, c: ImplicitALS(
            data.num_users,
            data.num_products,
            c.embedding_dim,
            c.ials_sweeps,
            c.ials_unobserved,
            c.ials_l2,
            c.rating_power,
        ),
    ),
    "mf": (
        MatrixFactorization,
        lambda data, rows, mean, c: MatrixFactorization(
            data.num_users,
            data.num_products,
            c.embedding_dim,
            mean,
            c.similarity,
            c.biases,
            c.partners,
            trained.columns(data, rows) if c.partners else {},
        ),
    ),
    "ncf": (
        NeuralCF,
        lambda data, rows, mean, c: NeuralCF(
            data.num_users,
            data.num_products,
            c.embedding_dim,
            mean,
            c.biases,
            c.gmf_dim,
            c.mlp_layers,
            c.cosine,
        ),
    ),
    "hybrid": (
        Hybrid,
        lambda data, rows, mean, c: Hybrid(
            data.num_users,
            data.features,
            data.context.shape[1],
            data.user_features.shape[1],
            c.embedding_dim,
            mean,
            c.terms,
            trained.columns(data, rows) if set(c.terms) & OF_ALL_ROWS else {},
        ),
    ),
}


def check(config: ModelConfig) -> None:
    """Raises UsageError where there is no such model, or it cannot do the task."""
    if config.model not in MODELS:
        raise UsageError(
            f"--model={config.model}: expected one of "
            f"{', '.join(MODELS)}.{nearest(config.model, MODELS)}"
        )
    tasks = MODELS[config.model][0].tasks
    if config.task not in tasks:
        raise UsageError(
            f"--model={config.model} --task={config.task}: {config.model} only does "
            f"--task={tasks[0]}."
        )


def build(dataset: Dataset, rows: np.ndarray, config: ModelConfig) -> Recommender:
    """The model of the settings with its variables made, ready for the data; `rows` are the
    training rows.

    Raises:
        UsageError: the model cannot do the task.
    """
    check(config)
    mean = trained.mean_target(dataset, rows) if config.task == "rating" else 0.0
    model = MODELS[config.model][1](dataset, rows, mean, config)
    model.built = True  # every weight is made in the constructor
    return model
