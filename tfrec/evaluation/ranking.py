"""Ranking metrics from the places of the relevant products.

Products of equal score come in any order, each as likely as another; every metric is its
expectation over these orders, as it is in scikit-learn's ndcg_score. A group of t tied products has
the places a + 1 .. a + t, where a products are scored higher; r of the t are relevant, R of the a.
With h = min(max(k - a, 0), t) of its places among the first k, a relevant product of the group has

    P(hit) = h / t        E[gain] = 1 / t sum_{j=1}^{h} 1 / log2(a + j + 1)
    E[hit * relevant at or above / place]
        = 1 / t sum_{j=1}^{h} (R + 1 + (j - 1) (r - 1) / (t - 1)) / (a + j)

The first hit is in the user's first group, where there is one: it is at the group's place j with
probability C(t - j, r - 1) / C(t, r).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

NAMES = ("hr", "recall", "precision", "ndcg", "map", "mrr")


@dataclass(frozen=True)
class Ranks:
    """One entry a relevant (user, product): user int [n] ascending; rank f64 [n] among the user's
    `candidates` int [n] products.

    The rank is 1 + the number of products scored higher + half the number of others scored equal.
    tied: int [n], how many products have the same score, itself counted; None: nothing is tied.
    """

    user: np.ndarray
    rank: np.ndarray
    candidates: np.ndarray
    tied: np.ndarray | None = None

    def hits(self, k: int) -> np.ndarray:
        """Returns the chance of each entry to be among the first k, f64 [n]."""
        tied = np.ones(len(self.rank), int) if self.tied is None else self.tied
        return np.clip(k - (self.rank - (tied + 1) / 2), 0, tied) / tied

    def __getitem__(self, chosen: np.ndarray) -> "Ranks":
        """Those of the entries that are chosen."""
        return Ranks(
            self.user[chosen],
            self.rank[chosen],
            self.candidates[chosen],
            None if self.tied is None else self.tied[chosen],
        )


def names(cutoffs: tuple[int, ...]) -> list[str]:
    """Names of the ranking metrics."""
    return [f"{name}@{k}" for k in cutoffs for name in NAMES] + ["auc"]


def primary_k(cutoffs: tuple[int, ...]) -> int:
    """Returns the cut-off that tables and pictures show: 10, or the least."""
    return 10 if 10 in cutoffs else min(cutoffs)


def shown_k(names: Iterable[str]) -> int:
    """Returns the cut-off at which tables and pictures show metrics of these names."""
    cutoffs = tuple(int(name.partition("@")[2]) for name in names if "@" in name)
    return primary_k(cutoffs or (10,))


def metrics(ranks: Ranks, cutoffs: tuple[int, ...]) -> dict[str, float]:
    """hr, recall, precision, ndcg, map, mrr at each cut-off, and auc; means over the users. {}
    where nobody has a relevant product.

    The AUC is of the users who have products that are not relevant, and is left out where nobody
    has.
    """
    if not len(ranks.user):
        return {}
    values = per_user(ranks, cutoffs)
    known = values["auc"][without_nothing_to_beat(ranks)]
    means = {name: float(of_users.mean()) for name, of_users in values.items() if name != "auc"}
    return means | ({"auc": float(known.mean())} if len(known) else {})


def without_nothing_to_beat(ranks: Ranks) -> np.ndarray:
    """Returns which users have candidates that are not relevant, without which there is no AUC.

    Bool, in the order of `ranks.user`.
    """
    _, first, relevant = np.unique(ranks.user, return_index=True, return_counts=True)
    return ranks.candidates[first] > relevant


def per_user(ranks: Ranks, cutoffs: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Returns {metric: one value a user with a relevant product}, in the order of `ranks.user`.

    An AUC without negatives is NaN.

    Args:
        ranks: Places of the relevant products.
        cutoffs: The k of the metrics.
    """
    _, first, row, relevant = np.unique(
        ranks.user, return_index=True, return_inverse=True, return_counts=True
    )
    tied = np.ones(len(row), int) if ranks.tied is None else ranks.tied
    above = ranks.rank - (tied + 1) / 2
    better, group, best = _relevant(row, above, first)
    longest = int(np.nanmax(np.minimum(above, max(cutoffs)), initial=0)) + max(cutoffs) + 1
    places = np.arange(1, longest + 1)
    gains, reciprocals = (
        np.r_[0, np.cumsum(value)] for value in (1 / np.log2(places + 1), 1 / places)
    )

    def total(values: np.ndarray) -> np.ndarray:
        return np.bincount(row, values, len(first))

    def between(sums: np.ndarray, h: np.ndarray) -> np.ndarray:
        """Sum over the places a + 1 .. a + h; NaN where a score is."""
        begin = np.nan_to_num(np.minimum(above, max(cutoffs))).astype(int)
        return np.where(
            np.isnan(above), np.nan, sums[begin + np.nan_to_num(h).astype(int)] - sums[begin]
        )

    result = {}
    for k in cutoffs:
        h = np.clip(k - above, 0, tied)
        hits, reachable = total(h / tied), np.minimum(relevant, k)
        inverse = between(reciprocals, h)
        others = np.where(tied > 1, (group - 1) / np.maximum(tied - 1, 1), 0)
        result[f"recall@{k}"] = hits / relevant
        result[f"precision@{k}"] = hits / k
        result[f"ndcg@{k}"] = total(between(gains, h) / tied) / gains[reachable]
        result[f"map@{k}"] = (
            total(((better + 1) * inverse + others * (h - (above + 1) * inverse)) / tied)
            / reachable
        )
        result[f"hr@{k}"], result[f"mrr@{k}"] = _first_hit(
            above[best], tied[best], group[best], h[best]
        )
    negatives = ranks.candidates[first] - relevant
    negatives_above = total(above - better + (tied - group) / 2)
    result["auc"] = np.where(
        negatives > 0, 1 - negatives_above / np.maximum(relevant * negatives, 1), np.nan
    )
    return result


def _relevant(
    row: np.ndarray, above: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns how many of the user's relevant products are scored higher than each entry, and how
    many equal, itself counted: int [n] each; and an entry of each user's best-scored group, int
    [users].
    """
    width = np.nanmax(above, initial=0) + 2  # beyond all places; a NaN comes last
    order = np.argsort(row * width + np.where(np.isnan(above), width - 1, above))
    new = np.r_[True, (np.diff(row[order]) != 0) | (np.diff(above[order]) != 0)]
    number = np.cumsum(new) - 1
    start, size = np.flatnonzero(new), np.bincount(number)
    better, group = np.empty(len(row), int), np.empty(len(row), int)
    better[order], group[order] = start[number] - first[row[order]], size[number]
    return better, group, order[first]


def _first_hit(
    above: np.ndarray, tied: np.ndarray, relevant: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the chance of a hit and the expected 1 / place of the first one, for each user's
    first group.

    H of its places count.
    """
    hit, reciprocal = (h > 0).astype(float), np.where(h > 0, 1 / (above + 1), 0.0)
    hit[np.isnan(h)] = reciprocal[np.isnan(h)] = np.nan
    several = np.flatnonzero(
        (tied > relevant) & (h > 0)
    )  # else the group's first place is a relevant product's
    if not len(several):
        return hit, reciprocal
    above, tied, relevant, h = (values[several] for values in (above, tied, relevant, h))
    count = np.minimum(h, tied - relevant + 1).astype(
        int
    )  # of places at which the first hit may be
    user = np.repeat(np.arange(len(count)), count)
    place = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)  # from 0
    factorial = np.r_[0, np.cumsum(np.log(np.arange(1, tied.max() + 1)))]

    def log_choose(n: np.ndarray, r: np.ndarray) -> np.ndarray:
        return factorial[n] - factorial[r] - factorial[n - r]

    chance = np.exp(
        log_choose(tied[user] - place - 1, relevant[user] - 1) - log_choose(tied, relevant)[user]
    )
    hit[several] = np.minimum(np.bincount(user, chance, len(count)), 1)
    reciprocal[several] = np.bincount(user, chance / (above[user] + place + 1), len(count))
    return hit, reciprocal
