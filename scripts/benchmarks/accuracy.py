"""Accuracy of other libraries on rows of docs/results.md: latest-small, each user's latest fifth
ranked, and a random fifth rated.

Settings of a ranking are chosen on validation rows; then the library learns from these rows too, as
a run of tfrec does. Surprise has its defaults.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

import tfrec
from tfrec.data.interactions import Interactions, Split
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.layers import Products
from tfrec.models.base import Batch, Recommender

DATASET, FACTORS, SEED = "latest-small", 64, 0
RANKED = ("ndcg@10", "hr@10")
Figures = dict[str, float]


class Given(Recommender):
    """Scores f32 [U, P] that another library made."""

    tasks = ("ranking",)
    batch_columns = ()

    def __init__(self, train: Interactions, settings: Any) -> None:
        super().__init__(name="given")
        self.table = self.add_weight(
            shape=(train.num_users, train.num_products), initializer="zeros", name="table"
        )

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        scores = tf.gather(self.table.value, batch["user"])
        if products is None:
            return scores
        if products.shape.rank == 1:
            return tf.gather(scores, products, axis=1)
        return tf.gather(scores, products, batch_dims=1)


def ease(x: np.ndarray, l2: float) -> np.ndarray:
    """Scores f32 [U, P] of EASE as in its paper (Steck, 2019), x B."""
    gram = x.T @ x + l2 * np.eye(x.shape[1], dtype=np.float32)
    inverse = np.linalg.inv(gram)
    between = inverse / -np.diag(inverse)
    np.fill_diagonal(between, 0)
    return x @ between


def als(x: np.ndarray, alpha: float, regularization: float) -> np.ndarray:
    """Scores f32 [U, P] of implicit's ALS."""
    from implicit.als import AlternatingLeastSquares

    return _factors(
        AlternatingLeastSquares(
            FACTORS, alpha=alpha, regularization=regularization, random_state=SEED
        ),
        x,
    )


def bpr(x: np.ndarray, learning_rate: float, regularization: float) -> np.ndarray:
    """Scores f32 [U, P] of implicit's BPR."""
    from implicit.bpr import BayesianPersonalizedRanking  # type: ignore[import-not-found]

    return _factors(
        BayesianPersonalizedRanking(
            FACTORS,
            learning_rate=learning_rate,
            regularization=regularization,
            random_state=SEED,
            num_threads=1,  # with more the result depends on which is first
        ),
        x,
    )


# peer: {what: (its scores, {setting: values})}; "" needs numpy alone
RANKINGS: dict[str, dict[str, tuple[Callable[..., np.ndarray], dict[str, tuple[float, ...]]]]] = {
    "": {"EASE in numpy": (ease, {"l2": (100, 200, 400, 800, 1600)})},
    "implicit": {
        "implicit ALS": (als, {"alpha": (1, 5, 20), "regularization": (0.01, 1, 10, 30)}),
        "implicit BPR": (bpr, {"learning_rate": (0.01, 0.05), "regularization": (0.01, 0.1)}),
    },
}
RATINGS = ("BaselineOnly", "SVD", "KNNBaseline", "SVDpp")  # of Surprise


def ranking(peer: str, what: str) -> tuple[dict[str, float], Figures]:
    """Returns the settings that the validation rows choose, and the figures of the test rows."""
    return ranked(tfrec.load(DATASET).split("user_temporal"), *RANKINGS[peer][what])


def ranked(
    split: Split, scores: Callable[..., np.ndarray], choices: dict[str, tuple[float, ...]]
) -> tuple[dict[str, float], Figures]:
    """As ranking, of any rows and peer."""
    train, every = matrix(split.train), matrix(split.train.joined(split.validation))
    options = [
        dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())
    ]

    def of_validation(chosen: dict[str, float]) -> float:
        return _figures(scores(train, **chosen), split, "validation")[RANKED[0]]

    best = max(options, key=of_validation)
    return best, _figures(scores(every, **best), split, "test")


def rating(name: str) -> Figures:
    """Returns the figures of one of Surprise's algorithms with its defaults."""
    import pandas as pd
    import surprise  # type: ignore[import-not-found]

    split = tfrec.load(DATASET).split("random")
    rows = split.train.joined(split.validation).columns()
    frame = pd.DataFrame({name: rows[name] for name in ("user", "product", "rating")})
    reader = surprise.Reader(rating_scale=(0.5, 5))
    train = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    algorithm = getattr(surprise, name)
    seeded = {"random_state": SEED} if name.startswith("SVD") else {}
    model = algorithm(**seeded).fit(train)
    tested = split.test.columns()
    pairs = zip(tested["user"], tested["product"], tested["rating"], strict=True)
    errors = np.array([model.predict(u, p).est - y for u, p, y in pairs])
    return {"rmse": float(np.sqrt(np.mean(errors**2))), "mae": float(np.mean(np.abs(errors)))}


def matrix(rows: Interactions) -> np.ndarray:
    """Returns who took what, f32 [U, P] of 0 and 1."""
    columns = rows.columns()
    made = np.zeros((rows.num_users, rows.num_products), np.float32)
    made[columns["user"], columns["product"]] = 1
    return made


def _factors(model: Any, x: np.ndarray) -> np.ndarray:
    from scipy.sparse import csr_matrix

    model.fit(csr_matrix(x), show_progress=False)
    return model.user_factors @ model.item_factors.T


def _figures(scores: np.ndarray, split: Split, part: str) -> Figures:
    given = Given.from_data(split.train, task="ranking")
    given.table.assign(scores)
    found = Evaluator(given, split, EvaluationSettings(), part=part).ranking_metrics()
    return {name: found[name] for name in RANKED}
