"""Batch -> score. The table of models: to add one, write its file and its line here."""

from collections.abc import Callable

from tfrec.config import ModelConfig
from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError, nearest
from tfrec.models.base import Recommender
from tfrec.models.content import Content
from tfrec.models.demographic import Demographic
from tfrec.models.ease import Ease
from tfrec.models.hybrid import Hybrid
from tfrec.models.ials import ImplicitALS
from tfrec.models.mf import MatrixFactorization
from tfrec.models.ncf import NeuralCF
from tfrec.models.neighbours import ItemKNN, UserKNN
from tfrec.models.popularity import Popularity

OF_ALL_ROWS = {
    "user_day_bias",
    "user_history",
    "product_history",
}  # terms that read them, in memory at once

# name: (class, what makes one from the training rows, their mean target and the settings)
MODELS: dict[
    str, tuple[type[Recommender], Callable[[Interactions, float, ModelConfig], Recommender]]
] = {
    "popularity": (
        Popularity,
        lambda train, mean, c: Popularity(train.num_users, train.num_products, c.task),
    ),
    "content": (Content, lambda train, mean, c: Content(train.num_users, train.catalog.features)),
    "demographic": (
        Demographic,
        lambda train, mean, c: Demographic(train.catalog.user_features, train.num_products, c.task),
    ),
    "item_knn": (
        ItemKNN,
        lambda train, mean, c: ItemKNN(
            train.num_users,
            train.num_products,
            len(train),
            c.task,
            c.neighbours,
            c.shrinkage,
        ),
    ),
    "user_knn": (
        UserKNN,
        lambda train, mean, c: UserKNN(
            train.num_users,
            train.num_products,
            len(train),
            c.task,
            c.neighbours,
            c.shrinkage,
        ),
    ),
    "ease": (
        Ease,
        lambda train, mean, c: Ease(
            train.num_users, train.num_products, len(train), c.ease_l2, c.confidence_power
        ),
    ),
    "ials": (
        ImplicitALS,
        lambda train, mean, c: ImplicitALS(
            train.num_users,
            train.num_products,
            c.embedding_dim,
            c.iterations,
            c.unobserved_weight,
            c.ials_l2,
            c.confidence_power,
        ),
    ),
    "mf": (
        MatrixFactorization,
        lambda train, mean, c: MatrixFactorization(
            train.num_users,
            train.num_products,
            c.embedding_dim,
            mean,
            c.similarity,
            c.biases,
            c.implicit_factors,
            train.columns() if c.implicit_factors else {},
        ),
    ),
    "ncf": (
        NeuralCF,
        lambda train, mean, c: NeuralCF(
            train.num_users,
            train.num_products,
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
        lambda train, mean, c: Hybrid(
            train.num_users,
            train.catalog.features,
            len(train.catalog.context_names),
            train.catalog.user_features.shape[1],
            c.embedding_dim,
            mean,
            c.terms,
            train.columns() if set(c.terms) & OF_ALL_ROWS else {},
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


def build(train: Interactions, config: ModelConfig) -> Recommender:
    """The model of the settings with its variables made, ready for the training rows.

    Raises:
        UsageError: the model cannot do the task.
    """
    check(config)
    mean = train.target_mean if config.task == "rating" else 0.0
    model = MODELS[config.model][1](train, mean, config)
    model.built = True  # every weight is made in the constructor
    return model
