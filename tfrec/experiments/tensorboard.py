"""What TensorBoard shows beside scalars and pictures.

Recommendations as text, products in the projector, a search's trials in HParams.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf
from tensorboard.plugins import projector
from tensorboard.plugins.hparams import api as hparams

from tfrec.data.interactions import Interactions, Split
from tfrec.models.base import Recommender
from tfrec.system import text

PRODUCTS_SHOWN = 10_000  # as many as the projector draws


def recommendations(model: Recommender, split: Split, k: int = 5) -> str:
    """The k best products, without those of the training rows, of a busy, a median and a quiet
    user: a Markdown table.

    Args:
        split: In memory, see Split.sample.
    """
    rows, catalog = split.train, split.catalog
    count = rows.counts("user")
    order = np.argsort(count, kind="stable")[np.count_nonzero(count == 0) :]
    if not len(order):  # from disk, where all whose rows are in memory are new
        return ""
    users = order[[-1, len(order) // 2, 0]]
    context = tf.tile(catalog.default_context[None], [len(users), 1])
    batch = {"user": tf.constant(users, tf.int32), "context": context}
    if catalog.user_features.shape[1]:
        batch["user_features"] = tf.constant(catalog.user_features[users])
    scores = model.output(model.score_all(batch)).numpy()
    lines = ["| user | training rows | recommended |", "|---|---|---|"]
    for user, mine in zip(users, scores):
        mine[rows.of_users(np.array([user])).columns()["product"]] = -np.inf
        titles = catalog.products["title"].iloc[np.argsort(-mine, kind="stable")[:k]]
        name = text.markdown(str(catalog.user_ids[user]))
        lines.append(f"| {name} | {count[user]:,} | {text.markdown('; '.join(titles))} |")
    return "\n".join(lines)


def project(folder: Path, model: Recommender, train: Interactions) -> None:
    """Writes the vectors of the most popular products for the projector, with title, popularity and
    worded features as labels.
    """
    vectors = model.product_embeddings()
    if vectors is None:
        return
    folder.mkdir(exist_ok=True)
    popularity = train.counts("product")
    shown = np.argsort(-popularity, kind="stable")[:PRODUCTS_SHOWN]
    labels = train.catalog.products.iloc[shown].map(
        lambda value: "|".join(value) if isinstance(value, list) else str(value)
    )
    labels = labels[
        [name for name in labels if not pd.api.types.is_numeric_dtype(train.catalog.products[name])]
    ]
    labels = (
        labels.replace(r"[\t\r\n]", " ", regex=True)
        .map(text.shown)
        .rename(columns=text.shown)
        .assign(popularity=popularity[shown])
    )
    labels.to_csv(folder / "products.tsv", sep="\t", index=False, quoting=3, escapechar="\\")
    np.savetxt(
        folder / "vectors.tsv", tf.gather(vectors, shown).numpy(), fmt="%.5g", delimiter="\t"
    )
    config = projector.ProjectorConfig()
    config.embeddings.add(
        tensor_name="products", tensor_path="vectors.tsv", metadata_path="products.tsv"
    )
    projector.visualize_embeddings(str(folder), config)


def search(
    folder: Path,
    choices: dict[str, tuple],
    intervals: dict[str, tuple[float, float]],
    objective: str,
) -> None:
    """What the HParams tab needs to know of a search, once.

    The settings' values, and the figure that decides.
    """
    if list(folder.glob("events.out.tfevents*")):
        return
    domains: dict[str, Any] = {
        name: hparams.Discrete(list(map(_plain, values))) for name, values in choices.items()
    }
    for name, (low, high) in intervals.items():
        domains[name] = (
            hparams.IntInterval(low, high)
            if isinstance(low, int)
            else hparams.RealInterval(low, high)
        )
    made = [hparams.HParam(name, domain) for name, domain in domains.items()]
    metric = hparams.Metric(_tag(objective), display_name=f"validation {objective}")
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams_config(made, [metric])


def trial(folder: Path, settings: dict[str, Any], objective: str, figure: float, step: int) -> None:
    """One trial's line in the HParams tab."""
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams({name: _plain(value) for name, value in settings.items()})
        tf.summary.scalar(_tag(objective), figure, step)


def _plain(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


def _tag(objective: str) -> str:
    return f"trial/{objective.replace('@', '_at_')}"
