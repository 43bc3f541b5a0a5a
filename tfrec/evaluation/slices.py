"""Metrics by slice of users and products, and what the recommended lists are like as a whole.

Warm has training rows, cold has none. Head, middle and tail cut the warm ones, sorted by their
number of training rows, so that each holds a third of the training rows.
"""

import numpy as np

from tfrec.data.sparse import SparseFeatures
from tfrec.evaluation import ranking, rating
from tfrec.evaluation.fallbacks import SOURCES
from tfrec.evaluation.ranking import Ranks

THIRDS = ("head", "middle", "tail")
ENTRIES_AT_ONCE = 4_000_000  # of the features of lists: some 200 MB


def groups(count: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {slice: which belong to it, bool [n]}.

    Who lies across a cut belongs to the upper third.

    Args:
        count: Training rows of each user or product, int [n].
    """
    order = np.argsort(-count, kind="stable")
    before = np.cumsum(count[order]) - count[order]
    third = np.empty(len(count), np.int64)
    third[order] = 3 * before // max(int(count.sum()), 1)
    warm = count > 0
    return {"warm": warm, "cold": ~warm} | {
        name: warm & (third == i) for i, name in enumerate(THIRDS)
    }


def metrics(
    count: np.ndarray,
    of_row: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray | None,
    of_rank: np.ndarray,
    ranks: Ranks,
    k: int,
) -> dict[str, dict[str, float]]:
    """Returns {slice: {rows, rmse, ndcg@k, hr@k, recall@k}} of users or of products.

    A slice that is not tested is left out. Among products, a user's ranking metrics are those of
    their relevant products in the slice, ranked among all products.

    Args:
        count: Training rows of each user (or product), int [n].
        of_row: The user (product) of each tested row, int [rows].
        true: Ratings, f32 [rows].
        predicted: Ratings, f32 [rows]; None for logits.
        of_rank: The user (product) of each entry of `ranks`, int [m].
        ranks: Places of the relevant products.
        k: The cut-off.
    """
    result = {}
    for name, member in groups(count).items():
        rows, ranked = member[of_row], member[of_rank]
        own: dict[str, float] = {"rows": int(rows.sum())}
        if predicted is not None and rows.any():
            own["rmse"] = rating.metrics(true[rows], predicted[rows], -np.inf, np.inf)["rmse"]
        part = ranking.metrics(ranks[ranked], (k,))
        own |= {
            f"{metric}@{k}": part[f"{metric}@{k}"] for metric in ("ndcg", "hr", "recall") if part
        }
        if rows.any() or ranked.any():
            result[name] = own
    return result


def by_source(
    source: np.ndarray, true: np.ndarray, scores: np.ndarray, scale: tuple[float, float]
) -> dict[str, dict[str, float]]:
    """Returns {source: {rows, rmse}} of predicted ratings.

    Args:
        source: What each answer is from, a number in fallbacks.SOURCES, int8 [rows].
        true: Ratings, f32 [rows].
        scores: Predictions, f32 [rows], which are clipped to the scale.
        scale: (least, greatest) rating.
    """
    result = {}
    for number in np.unique(source):
        rows = source == number
        rmse = rating.metrics(true[rows], scores[rows], *scale)["rmse"]
        result[SOURCES[number]] = {"rows": int(rows.sum()), "rmse": rmse}
    return result


def beyond_accuracy(
    top: np.ndarray, count: np.ndarray, features: SparseFeatures, cutoffs: tuple[int, ...]
) -> dict[str, float]:
    """coverage, novelty (bits) and diversity at each cut-off; {} where there are no lists.

    coverage: share of the products that stand in anybody's list. novelty: mean of -log2(share of
    the training rows); a product without training rows counts as with one. diversity: mean over the
    pairs of a list of 1 - cosine of their features; without features, cosine 0.

    Args:
        top: int32 [U, K], each user's products, best first, -1 where there are no more.
        count: int [P], training rows of each product.
        features: [P, F]; with F = 0 there is no diversity.
    """
    result: dict[str, float] = {}
    bits = -np.log2(np.maximum(count, 1) / max(int(count.sum()), 1))
    for k in cutoffs:
        listed = top[:, :k]
        there = listed >= 0
        if not there.any():
            continue
        own = there.any(axis=1)
        mean_bits = np.where(there, bits[listed], 0).sum(axis=1)[own] / there.sum(axis=1)[own]
        result[f"coverage@{k}"] = len(np.unique(listed[there])) / len(count)
        result[f"novelty@{k}"] = float(mean_bits.mean())
        distance = diversity(listed, features)
        if len(distance):
            result[f"diversity@{k}"] = float(distance.mean())
    return result


def diversity(top: np.ndarray, features: SparseFeatures) -> np.ndarray:
    """Mean 1 - cosine over the pairs of each list of two products or more: f64 [lists]; top int [U,
    k], -1 for none; features [P, F].

    Twice the sum of the pairs' cosines is |sum of the unit vectors|^2 - sum of their |.|^2, so no
    pair is ever formed.
    """
    if not features.shape[1]:
        return np.zeros(0)
    top = top[(top >= 0).sum(axis=1) > 1]
    unit, width = features.unit_rows(), features.shape[1]
    entries = max(len(unit.values) // max(features.shape[0], 1), 1)  # of a product, in the mean
    block, means = max(1, ENTRIES_AT_ONCE // (top.shape[1] * entries)), []
    for begin in range(0, len(top), block):
        listed = top[begin : begin + block]
        owner, place = np.nonzero(listed >= 0)
        of = unit.take(listed[owner, place])
        owners, count = owner[of.rows], len(listed)
        keys, at = np.unique(owners * width + of.columns, return_inverse=True)
        of_list = np.square(np.bincount(at, of.values, len(keys)))  # of the sum of unit vectors
        squares = np.bincount(owners, np.square(of.values.astype(float)), count)
        cosines = np.bincount(keys // width, of_list, count) - squares
        size = (listed >= 0).sum(axis=1)
        means.append(1 - cosines / (size * (size - 1)))
    return np.concatenate(means) if means else np.zeros(0)
