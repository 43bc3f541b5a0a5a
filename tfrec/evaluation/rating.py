"""Metrics of predicted ratings, and the reference system's metrics at k."""

import numpy as np

NAMES = ("rmse", "mae", "mape", "r2", "fcp")
PAIRED_AT_ONCE = 1_000  # rows of a user, with all rows of theirs


def metrics(rating: np.ndarray, predicted: np.ndarray, low: float, high: float) -> dict[str, float]:
    """rmse, mae, mape (percent) and r2 of predictions clipped to [low, high]; all in rating units,
    [n] each; {} where n = 0.

    There is no mape where a rating is 0: the error of such a row has no percentage.
    """
    if not len(rating):
        return {}
    error = np.clip(predicted, low, high).astype(np.float64) - rating
    spread = np.sum(np.square(rating - rating.mean(dtype=np.float64)))
    percent = {"mape": float(100 * np.mean(np.abs(error / rating)))} if rating.all() else {}
    return {
        "rmse": float(np.sqrt(np.mean(np.square(error)))),
        "mae": float(np.mean(np.abs(error))),
        **percent,
        "r2": float(1 - np.sum(np.square(error)) / spread) if spread else 0.0,
    }


def concordance(user: np.ndarray, rating: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Returns fcp, the fraction of concordant pairs (Koren and Sill, "OrdRec", 2011).

    Of all pairs of rows of one user with unlike ratings, the share whose predictions stand in the
    same order; equal predictions count half, so a constant has 0.5. {} where there is no such pair.

    Args:
        user: int [n].
        rating, predicted: f32 [n].
    """
    order = np.argsort(user, kind="stable")
    concordant, pairs = 0.0, 0
    for rows in np.split(order, np.flatnonzero(np.diff(user[order])) + 1):
        for some in np.split(rows, range(PAIRED_AT_ONCE, len(rows), PAIRED_AT_ONCE)):
            better = rating[some, None] > rating[rows]
            sign = np.sign(predicted[some, None] - predicted[rows])
            concordant += (1 + sign[better]).sum() / 2
            pairs += int(better.sum())
    return {"fcp": float(concordant / pairs)} if pairs else {}


def reference_metrics(
    user: np.ndarray, rating: np.ndarray, predicted: np.ndarray, k: int = 5
) -> dict[str, float]:
    """Returns the reference system's metrics (docs/reference.md), averaged over the users with
    at least k rows; {} without any. Ties keep the rows' order.

    y_test are a user's k rows of the highest rating, `predicted` those of the highest score.
    reference_mrr is the tutorial's: the mean over y_test of 1 / (rank in predicted), 0 where
    absent.
    """
    keep = np.bincount(user)[user] >= k
    user, rating, predicted = user[keep], rating[keep], predicted[keep]
    if not len(user):
        return {}
    true, guess = _top(user, rating, k), _top(user, predicted, k)  # row numbers [users, k]
    same = true[:, :, None] == guess[:, None, :]
    reciprocal = same / np.arange(1, k + 1)
    return {
        f"reference_true_positives@{k}": float(same.sum(axis=(1, 2)).mean()),
        f"reference_true_positives_share@{k}": float(same.sum(axis=(1, 2)).mean() / k),
        f"reference_accuracy@{k}": float((true == guess).mean()),
        f"reference_mrr@{k}": float(reciprocal.sum(axis=2).mean()),
    }


def _top(user: np.ndarray, value: np.ndarray, k: int) -> np.ndarray:
    """Returns each user's k rows of the highest value, best first: [users, k]."""
    order = np.lexsort((-value, user))
    first = np.unique(user[order], return_index=True)[1]
    return order[first[:, None] + np.arange(k)]
