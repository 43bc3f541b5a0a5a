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
    """Returns the k best products, without those of the training rows, of a busy, a median and a
    quiet user: a Markdown table.

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
    if model.reads("user_features") and catalog.user_features.shape[1]:
        batch["user_features"] = tf.constant(catalog.user_features.take(users).dense())
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
    products = train.catalog.products.iloc[shown]
    texts = [name for name in products if not pd.api.types.is_numeric_dtype(products[name])]
    labels = products[texts].map(lambda value: "|".join(value) if _is_list(value) else str(value))
    for name in texts:  # the projector colours by up to 50 values: a movie's first genre, say
        if products[name].map(_is_list).all():
            labels[f"first of {name}"] = products[name].map(lambda value: "".join(value[:1]))
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


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def search(
    folder: Path,
    choices: dict[str, tuple],
    intervals: dict[str, tuple[float, float]],
    objective: str,
) -> None:
    """What the HParams tab needs to know of a search, once.

    The settings' values, and the metric that decides.
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
    name = f"validation {objective}"
    metric = hparams.Metric(_tag(name), display_name=name)
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams_config(made, [metric])


def result(folder: Path, settings: dict[str, Any], metrics: dict[str, float], step: int) -> None:
    """Writes a line of the HParams tab.

    Args:
        folder: Of the event file.
        settings: {name: value} of a run or a trial; those that are not set are left out.
        metrics: {name: value}, such as "validation rmse".
        step: At which the kept weights were made.
    """
    values = {
        n: _plain(v) for n, v in settings.items() if v not in (None, "", ()) and n != "workdir"
    }
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams(values)
        for name, value in metrics.items():
            tf.summary.scalar(_tag(name), value, step)


def _plain(value: Any) -> Any:
    return "+".join(map(str, value)) if isinstance(value, tuple) else value


def _tag(metric: str) -> str:
    return f"verdict/{metric.replace('@', '_at_').replace(' ', '_')}"
