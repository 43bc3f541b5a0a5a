"""How well new users are served (scripts/fold_in.py says how it is measured)."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data import sources
from tfrec.evaluation import ranking
from tfrec.evaluation.ranking import Ranks
from tfrec.experiments import run
from tfrec.experiments.config import make_config
from tfrec.system.text import aligned


def study(folder: Path, models: list[str]) -> str:
    """A table of NDCG@10 by model; its runs stay in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    given, asked, features = _write(folder)
    likes, wanted = (
        given.groupby("user")["product"].apply(list),
        asked.groupby("user")["product"].apply(set),
    )
    wanted = wanted[wanted.index.isin(likes.index)]
    lines = [["NDCG@10", "fold-in", "trained with", "popularity"]]
    for model in models:
        without, trained = (_train(folder, model, name, features) for name in ("without", "with"))
        lists = {
            "k": tf.constant(10),
            "context": tf.zeros([0, 2]),
            "timestamp": tf.zeros([0], tf.int64),
        }
        lists |= {"exclude": tf.zeros([0, 0], tf.int64), "allow": tf.zeros([0], tf.int64)}
        answers = [
            without["recommend_for_history"](
                product=tf.constant([likes[user]], tf.int64), rating=tf.zeros([0, 1]), **lists
            )
            for user in wanted.index
        ]
        known = trained["recommend"](
            user=tf.constant(wanted.index.to_numpy()), exclude_seen=tf.constant(True), **lists
        )
        stranger = without["recommend_for_history"](
            product=tf.constant([[-1]], tf.int64),
            rating=tf.zeros([0, 1]),
            **lists | {"k": tf.constant(3000)},
        )
        popular = [
            [p for p in stranger["product"].numpy()[0] if p not in set(likes[user])][:10]
            for user in wanted.index
        ]
        tops = [
            [answer["product"].numpy()[0] for answer in answers],
            known["product"].numpy(),
            popular,
        ]
        lines.append([model, *(f"{_ndcg(top, wanted):.4f}" for top in tops)])
    return aligned(lines)


def _write(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Writes the files of the runs.

    Returns the held-out users' rows that are given, those that are asked for, and products'
    features.
    """
    tables, random = sources.read(make_config().data), np.random.RandomState(0)
    rows = tables.rows.frame()
    users = rows["user"].unique()
    held_out = rows["user"].isin(random.permutation(users)[: len(users) // 10])
    half, validation = random.rand(len(rows)) < 0.5, ~held_out & (random.rand(len(rows)) < 0.1)
    given, asked, train = (
        rows[held_out & half],
        rows[held_out & ~half],
        rows[~held_out & ~validation],
    )
    parts = {
        "test": asked,
        "validation": rows[validation],
        "without": train,
        "with": pd.concat([train, given]),
    }
    for name, part in parts.items():
        part.to_csv(folder / f"{name}.csv", index=False)
    lists = tables.products[
        [name for name, values in tables.products.items() if isinstance(values.iloc[0], list)]
    ]
    lists.map("|".join).to_csv(folder / "products.csv", index_label="product")
    return given, asked, tuple(lists)


def _train(folder: Path, model: str, rows: str, features: tuple[str, ...]) -> dict:
    """The signatures of a run on these rows."""
    files = {
        "train_file": f"{rows}.csv",
        "test_file": "test.csv",
        "validation_file": "validation.csv",
        "products": "products.csv",
    }
    paths = {name: str(folder / file) for name, file in files.items()}
    workdir = folder / f"{model}-{rows}"
    with contextlib.redirect_stdout(io.StringIO()):
        own = {"dataset": "files", "split": "files", "products_multivalued": features}
        run.train(make_config(model=model, task="ranking", workdir=str(workdir), **own, **paths))
    return tf.saved_model.load(str(workdir / "export")).signatures


def _ndcg(tops: list, wanted: pd.Series) -> float:
    """tops: each user's ten products, best first; wanted: their relevant ones."""
    found = []
    for row, (top, relevant) in enumerate(zip(tops, wanted)):
        place = {int(product): rank for rank, product in enumerate(top, 1)}
        found += [(row, place.get(product, 10_000)) for product in relevant]
    user, rank = (np.array(column) for column in zip(*found))
    return ranking.metrics(Ranks(user, rank.astype(float), np.full(len(user), 10_000)), (10,))[
        "ndcg@10"
    ]
