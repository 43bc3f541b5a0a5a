import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from tfrec.evaluation import rating

PARTS = ("true_positives", "true_positives_share", "accuracy", "mrr")


def make_ratings(count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    return (random.randint(1, 11, count) / 2).astype(np.float32), random.uniform(
        -1, 7, count
    ).astype(np.float32)


def test_metrics_equal_scikit_learn_after_clipping():
    true, predicted = make_ratings()
    clipped = np.clip(predicted, 0.5, 5)
    expected = {
        "rmse": sklearn_metrics.root_mean_squared_error(true, clipped),
        "mae": sklearn_metrics.mean_absolute_error(true, clipped),
        "mape": 100 * sklearn_metrics.mean_absolute_percentage_error(true, clipped),
        "r2": sklearn_metrics.r2_score(true, clipped),
    }
    assert rating.metrics(true, predicted, 0.5, 5.0) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**31), st.integers(1, 50))
def test_fcp_is_the_share_of_pairs_of_a_user_that_stand_in_order(rows, users, seed, at_once):
    random = np.random.RandomState(seed)
    user, true, predicted = (random.randint(0, users, rows), *random.randint(0, 4, (2, rows)))
    outcomes = [
        (np.sign(predicted[a] - predicted[b]) + 1) / 2
        for a in range(rows)
        for b in range(rows)
        if user[a] == user[b] and true[a] > true[b]
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rating, "PAIRED_AT_ONCE", at_once)
        found = rating.concordance(user, true.astype(np.float32), predicted.astype(np.float32))
    assert found == ({"fcp": pytest.approx(np.mean(outcomes))} if outcomes else {})


def test_clipping_forgives_what_is_out_of_range():
    true = np.array([1, 5], np.float32)
    assert rating.metrics(true, np.array([-10, 99], np.float32), 1, 5) == {
        "rmse": 0,
        "mae": 0,
        "mape": 0,
        "r2": 1,
    }


def test_the_sums_do_not_lose_digits_on_many_rows():
    true = np.full(3_000_000, 4, np.float32)
    assert rating.metrics(true, true - np.float32(0.1), 0, 5)["mae"] == pytest.approx(0.1, rel=1e-6)


def test_r2_is_0_where_all_ratings_are_equal():
    assert (
        rating.metrics(np.full(3, 4, np.float32), np.array([3, 4, 5], np.float32), 1, 5)["r2"] == 0
    )


def test_no_rows_no_metrics():
    none = np.zeros(0, np.float32)
    assert rating.metrics(none, none, 1, 5) == {}
    assert rating.reference_metrics(np.zeros(0, np.int32), none, none) == {}


def slow_reference(user, true, predicted, k):
    """The reference metrics word by word, one user at a time."""
    users = []
    for one in sorted(set(user)):
        rows = [row for row in range(len(user)) if user[row] == one]
        if len(rows) < k:
            continue
        y_test = sorted(rows, key=lambda row: -true[row])[:k]  # Python's sort is stable
        guess = sorted(rows, key=lambda row: -predicted[row])[:k]
        both = len(set(y_test) & set(guess))
        reciprocal = [1 / (guess.index(row) + 1) if row in guess else 0 for row in y_test]
        users.append(
            (both, both / k, sum(a == b for a, b in zip(y_test, guess)) / k, sum(reciprocal) / k)
        )
    return {
        f"reference_{part}@{k}": sum(column) / len(users)
        for part, column in zip(PARTS, zip(*users))
    }


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)), max_size=30),
)
def test_reference_metrics_equal_a_loop_over_users(k, rows):
    """Few values, so nearly everything is a tie.

    Users with fewer than k rows are left out by the loop.
    """
    user, true, predicted = np.array(rows, np.int32).reshape(-1, 3).T
    result = rating.reference_metrics(
        user, true.astype(np.float32), predicted.astype(np.float32), k
    )
    assert result == pytest.approx(slow_reference(list(user), list(true), list(predicted), k))


def test_reference_metrics_are_at_5_and_leave_out_users_with_fewer_rows():
    user = np.array([0] * 4 + [7] * 6)
    value = np.arange(10, dtype=np.float32)
    perfect = rating.reference_metrics(user, value, value)
    assert perfect == pytest.approx(
        dict(
            zip(
                [f"reference_{part}@5" for part in PARTS],
                (5, 1, 1, (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 5),
            )
        )
    )
    assert (
        rating.reference_metrics(user[:9], value[:9], -value[:9])["reference_true_positives@5"] == 5
    )
    assert rating.reference_metrics(user[:8], value[:8], value[:8]) == {}
