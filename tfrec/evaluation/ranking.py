"""Ranking metrics from the ranks of the relevant products.

The rank of a product = 1 + the number of products scored higher + half the number of others scored equal. Hit and gain count where the
rank is at most k.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranks:
    """One entry a relevant (user, product): user int [n] ascending; rank f64 [n] among the user's `candidates` int [n] products."""

    user: np.ndarray
    rank: np.ndarray
    candidates: np.ndarray


def headline(cutoffs: tuple[int, ...]) -> int:
    """The cut-off that tables and pictures show: 10, or the least."""
    return 10 if 10 in cutoffs else min(cutoffs)


def metrics(ranks: Ranks, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """hr, recall, precision, ndcg, map, mrr at each cut-off, and auc; means over the users. {} where nobody has a relevant product."""
    if not len(ranks.user):
        return {}
    return {name: float(values.mean()) for name, values in per_user(ranks, cutoffs).items()}


def per_user(ranks: Ranks, cutoffs: tuple[int, ...]) -> dict[str, np.ndarray]:
    """{metric: one value a user with a relevant product, in the order of `ranks.user`}."""
    _, first, row, relevant = np.unique(ranks.user, return_index=True, return_inverse=True, return_counts=True)
    among_relevant = _rank_among_relevant(row, ranks.rank, first)

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values, len(first))

    result = {}
    best = np.minimum.reduceat(ranks.rank, first)
    for k in cutoffs:
        hit = ranks.rank <= k
        hits, reachable = total(hit), np.minimum(relevant, k)
        ideal = np.cumsum(1 / np.log2(np.arange(2, k + 2)))[reachable - 1]
        result[f"hr@{k}"] = (hits > 0).astype(float)
        result[f"recall@{k}"] = hits / relevant
        result[f"precision@{k}"] = hits / k
        result[f"ndcg@{k}"] = total(hit / np.log2(ranks.rank + 1)) / ideal
        result[f"map@{k}"] = total(hit * among_relevant / ranks.rank) / reachable
        result[f"mrr@{k}"] = np.where(best <= k, 1 / best, 0)
    negatives = ranks.candidates[first] - relevant
    negatives_above = total(ranks.rank - among_relevant)
    result["auc"] = 1 - negatives_above / np.maximum(relevant * negatives, 1)
    return result


def _rank_among_relevant(row: np.ndarray, rank: np.ndarray, first: np.ndarray) -> np.ndarray:
    """1 + the number of the user's relevant products with a lower rank + half the number of others with the same."""
    order = np.lexsort((rank, row))
    new = np.r_[True, (np.diff(row[order]) != 0) | (np.diff(rank[order]) != 0)]  # a group: products of one user at one rank
    group = np.cumsum(new) - 1
    start, size = np.flatnonzero(new), np.bincount(group)
    result = np.empty(len(row))
    result[order] = 1 + start[group] - first[row[order]] + (size[group] - 1) / 2
    return result
