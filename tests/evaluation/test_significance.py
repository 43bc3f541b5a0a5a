import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrec.evaluation import significance

RESAMPLES = 20_000


def worlds(seed, users=5):
    """Sums of two runs f64 [users, 2] and counts [users]."""
    random = np.random.RandomState(seed)
    counts = random.randint(1, 9, users)
    return random.rand(users, 2) * counts[:, None] + np.array([0, 0.15]) * counts[:, None], counts


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_every_possible_draw_of_few_users(seed):
    """5^5 draws of 5 users, each as likely as any other.

    The bootstrap's distribution without chance.
    """
    sums, counts = worlds(seed)
    draws = np.array(list(itertools.product(range(5), repeat=5)))
    exact = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)[:, None]
    found = significance.resample(sums, counts, RESAMPLES, seed)
    for point in (0.1, 0.5, 0.9):
        np.testing.assert_allclose(
            np.quantile(found, point, axis=0), np.quantile(exact, point, axis=0), atol=0.02
        )
    difference = significance.difference(np.sqrt(found[:, 0]), np.sqrt(found[:, 1]), 0.0)
    true = np.sqrt(exact[:, 1]) - np.sqrt(exact[:, 0])
    assert difference.low == pytest.approx(np.quantile(true, 0.025), abs=0.02)
    assert difference.high == pytest.approx(np.quantile(true, 0.975), abs=0.02)
    assert difference.p == pytest.approx(
        min(1, 2 * min((true <= 0).mean(), (true >= 0).mean())), abs=0.02
    )


def test_the_interval_is_that_of_scipys_paired_bootstrap():
    from scipy.stats import bootstrap

    sums, ones = worlds(0, users=200)[0], np.ones(200)
    found = significance.resample(sums, ones, RESAMPLES, 0)
    mine = significance.difference(found[:, 0], found[:, 1], 0.0)
    statistic = lambda first, other, axis: other.mean(axis) - first.mean(axis)  # noqa: E731
    theirs = bootstrap(
        tuple(sums.T),
        statistic,
        n_resamples=RESAMPLES,
        paired=True,
        method="percentile",
        random_state=1,
    )
    width = theirs.confidence_interval.high - theirs.confidence_interval.low
    np.testing.assert_allclose([mine.low, mine.high], theirs.confidence_interval, atol=0.03 * width)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 4))
def test_a_run_against_itself_does_not_differ_whatever_stands_beside_it(seed, users, runs):
    sums, counts = worlds(seed, users)
    found = significance.resample(np.concatenate([sums] * (runs + 1), axis=1), counts, 200, seed)
    assert significance.difference(found[:, 0], found[:, 2 * runs], 0.0) == significance.Difference(
        0.0, 0.0, 0.0, 1.0
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 30))
def test_exchanging_the_runs_turns_the_difference_round(seed, users):
    found = significance.resample(*worlds(seed, users), 300, seed)
    there = significance.difference(found[:, 0], found[:, 1], 0.1)
    back = significance.difference(found[:, 1], found[:, 0], -0.1)
    np.testing.assert_allclose(
        [back.low, back.high, back.p], [-there.high, -there.low, there.p], atol=1e-12
    )
    assert 0 < there.p <= 1 and there.low <= there.high


def test_blocks_of_any_size_make_the_same_draws(monkeypatch):
    whole = significance.resample(*worlds(0), 50, 3)
    monkeypatch.setattr(significance, "FLOATS_AT_ONCE", 35)
    np.testing.assert_allclose(significance.resample(*worlds(0), 50, 3), whole, rtol=1e-12)
    assert not np.allclose(significance.resample(*worlds(0), 50, 4), whole)


def test_what_is_never_reversed_has_the_least_p_that_the_draws_allow():
    found = significance.resample(np.array([[0.1, 0.9]] * 9), np.ones(9), 999, 0)
    assert significance.difference(found[:, 0], found[:, 1], 0.8).p == 2 / 1000
