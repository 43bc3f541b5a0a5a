"""Is one run better than another? The paired bootstrap over users.

A metric is a ratio of two sums over the users: sum_u w_u a_u / sum_u w_u n_u, where w_u says how
often user u was drawn. For ranking metrics n_u = 1; for rmse (the root is taken afterwards) and
mae, a_u is the sum of a user's errors and n_u their number. Both runs are given the same draws, so
what makes a user hard for both cancels out. Source: B. Efron and R. J. Tibshirani, "An Introduction
to the Bootstrap", 1993, chapters 13 and 15.
"""

from dataclasses import dataclass

import numpy as np

FLOATS_AT_ONCE = 4_000_000  # of the draws: 32 MB
NOISE = 1e-12  # a matrix product may round equal columns differently


@dataclass(frozen=True)
class Difference:
    """The difference of a metric between two runs.

    Args:
        value: Of the other run, minus that of the first.
        low, high: Its 95 % interval.
        p: Two-sided.
    """

    value: float
    low: float
    high: float
    p: float


def resample(sums: np.ndarray, counts: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Returns the ratios sums / counts over all users, each row of the result for another draw of
    users: f64 [resamples, m].

    sums: f64 [users, m]; counts: [users]. The draws are a function of (users, resamples, seed).
    """
    random, users = np.random.default_rng(seed), len(counts)
    block, ratios = max(1, FLOATS_AT_ONCE // users), []
    for begin in range(0, resamples, block):
        drawn = random.multinomial(
            users, np.full(users, 1 / users), min(block, resamples - begin)
        ).astype(np.float64)
        ratios.append(drawn @ sums / (drawn @ counts.astype(np.float64))[:, None])
    return np.concatenate(ratios)


def difference(first: np.ndarray, other: np.ndarray, value: float) -> Difference:
    """first, other: a metric of two runs on the same draws, f64 [resamples]; value: the difference
    on all users as they are.

    The interval cuts 2.5 % of the draws off at each end. p is twice the share of the draws on the
    lesser side of zero (at most 1, and never 0: the users as they are count as a draw).
    """
    drawn = other - first
    drawn[np.abs(drawn) < NOISE] = 0
    low, high = np.quantile(drawn, [0.025, 0.975])
    below, above = (
        (1 + np.count_nonzero(side)) / (1 + len(drawn)) for side in (drawn <= 0, drawn >= 0)
    )
    return Difference(value, float(low), float(high), min(1.0, 2 * min(below, above)))
