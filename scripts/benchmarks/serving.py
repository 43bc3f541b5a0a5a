"""How fast a model ranks.

Full-ranking evaluation, and the exported `recommend` beside the same scores and top-k in numpy.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.world import structured
from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions
from tfrec.errors import TfrecError
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.experiments import parts
from tfrec.experiments.config import make_config
from tfrec.models.base import Recommender
from tfrec.serving.export import ServingModule, export
from tfrec.system.machine import limit_intra_op_threads

K, REPEATS = 10, 3
Weights = dict[str, np.ndarray]


def divided(rows: MemoryInteractions) -> Split:
    """The last tenth is tested."""
    index, end = np.arange(len(rows)), len(rows) * 9 // 10
    return Split(*(rows.take(part) for part in (index[:end], index[:0], index[end:])))


def tested_users(rows: int) -> tuple[int, np.ndarray]:
    """The number of training rows, and the users [n] who have test rows."""
    split = divided(structured(rows))
    return len(split.train), split.test.users()


def evaluation(name: str, rows: int) -> float:
    """Users/s of full ranking as a run validates with it, metrics included.

    Best of three after one that traces.
    """
    limit_intra_op_threads()  # as every run does
    split, config = divided(structured(rows)), make_config(model=name, task="ranking")
    model = parts.make_model(split.train, config)
    evaluator = Evaluator(model, split, EvaluationSettings(k=(K,), ranked_users=0))
    users = len(np.unique(evaluator.full_ranking().ranks.user))
    return users / _best(evaluator.ranking_metrics)


def _best(function: Callable[[], Any]) -> float:
    """Seconds of the fastest of three calls."""
    seconds = []
    for _ in range(REPEATS):
        began = time.monotonic()
        function()
        seconds.append(time.monotonic() - began)
    return min(seconds)


def serving(name: str, rows: int, calls: dict[int, int]) -> dict[int, dict[str, float]]:
    """Milliseconds a call of `recommend`, k = 10, what the users had hidden: {users at once: p50,
    p99, and numpy's p50}.

    calls: {users at once: how many calls}. The model is not trained, which makes no difference to
    its speed; it is exported, and loaded from disk.

    Raises:
        TfrecError: the answers of the two differ.
    """
    split = divided(structured(rows))
    plain = {"similarity": "dot"} if name == "mf" else {}
    config = make_config(model=name, task="ranking", loss="sigmoid", **plain)
    catalog = split.catalog
    model = parts.make_trained(split.train, config)
    in_numpy, known, result = numpy_recommend(name, model, split), split.train.users(), {}
    with tempfile.TemporaryDirectory() as folder:
        export(ServingModule(model, split), Path(folder) / "export")
        loaded = tf.saved_model.load(f"{folder}/export")
        everyone = {
            "context": tf.zeros([0, len(catalog.default_context)]),
            "timestamp": tf.zeros([0], tf.int64),
        }
        everyone |= {
            "exclude": tf.zeros([0, 0], tf.int64),
            "allow": tf.zeros([0], tf.int64),
            "exclude_seen": tf.constant(True),
            "k": tf.constant(K),
        }

        def exported(user: np.ndarray) -> np.ndarray:
            return loaded.signatures["recommend"](
                user=tf.constant(catalog.user_ids[user]), **everyone
            )["score"].numpy()

        for batch, count in calls.items():
            users = [np.random.RandomState(call).choice(known, batch) for call in range(count)]
            if not np.allclose(exported(users[0]), in_numpy(users[0]), rtol=1e-3, atol=1e-4):
                raise TfrecError(
                    f"serve, {name}: numpy and the exported model recommend with different scores."
                )
            ours, theirs = _milliseconds(exported, users), _milliseconds(in_numpy, users)
            figures = {
                "p50": np.percentile(ours, 50),
                "p99": np.percentile(ours, 99),
                "numpy p50": np.percentile(theirs, 50),
            }
            result[batch] = {name: float(figure) for name, figure in figures.items()}
    return result


def _milliseconds(
    function: Callable[[np.ndarray], np.ndarray], users: list[np.ndarray]
) -> list[float]:
    """Of each call, after a few that warm up."""
    for user in users[:20]:
        function(user)
    seconds = []
    for user in users:
        began = time.perf_counter()
        function(user)
        seconds.append(time.perf_counter() - began)
    return [1000 * second for second in seconds]


def numpy_recommend(
    name: str, model: Recommender, split: Split
) -> Callable[[np.ndarray], np.ndarray]:
    """users [B] -> scores of their 10 best products that they have not had, [B, 10].

    What one would write without a framework.
    """
    weights = {path: variable.numpy() for path, variable in model.named_weights().items()}
    products, begin = split.seen_products()
    seen = np.split(products, begin[1:-1])

    def recommend(user: np.ndarray) -> np.ndarray:
        scores = SCORES[name](weights, user)
        for row, one in zip(scores, user):
            row[seen[one]] = -np.inf
        best = np.argpartition(scores, -K, axis=1)[:, -K:]
        values = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-values, axis=1)
        products = split.catalog.product_ids[np.take_along_axis(best, order, axis=1)]
        assert products.shape == (len(user), K)
        return np.take_along_axis(values, order, axis=1)

    return recommend


def _mf(weights: Weights, user: np.ndarray) -> np.ndarray:
    (x, of_user), (z, of_product) = (
        np.split(table, [-1], axis=1) for table in _tables(weights, user)
    )
    return x @ z.T + weights["mean"] + of_user + of_product.T


def _ncf(weights: Weights, user: np.ndarray) -> np.ndarray:
    kernel, head = weights["mlp/hidden/kernel"], weights["head/kernel"][:, 0]
    dim = len(kernel) // 2
    (x, u, of_user), (z, v, of_product) = (
        np.split(table, [dim, 2 * dim], axis=1) for table in _tables(weights, user)
    )
    cosine = x @ z.T / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(z, axis=1)
    hidden = np.maximum(
        (u @ kernel[:dim] + weights["mlp/hidden/bias"])[:, None] + v @ kernel[dim:], 0
    )
    return (
        cosine * head[0]
        + hidden @ head[1:]
        + weights["head/bias"]
        + weights["mean"]
        + of_user
        + of_product.T
    )


def _tables(weights: Weights, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return weights["users/table"][user], weights["products/table"]


SCORES = {"mf": _mf, "ncf": _ncf}
