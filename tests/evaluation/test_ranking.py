import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from tfrec.evaluation import ranking
from tfrec.evaluation.ranking import Ranks

CUTOFFS = (1, 2, 3, 5, 20)


def make_ranks(scores: np.ndarray, relevant: np.ndarray) -> Ranks:
    """scores, relevant [U, P]; all products are candidates."""
    user, product = np.nonzero(relevant)
    own = scores[user, product][:, None]
    higher, tied = (scores[user] > own).sum(axis=1), (scores[user] == own).sum(axis=1)
    return Ranks(user, 1 + higher + (tied - 1) / 2, np.full(len(user), scores.shape[1]), tied)


def over_all_orders(scores: np.ndarray, relevant: np.ndarray, k: int) -> dict[str, float]:
    """A user's metrics from their definitions, their means over all orders that the scores [P]
    allow.
    """
    groups = [np.flatnonzero(scores == value) for value in sorted(set(scores), reverse=True)]
    count, each = relevant.sum(), []
    for parts in itertools.product(*(itertools.permutations(group) for group in groups)):
        hit = relevant[[product for part in parts for product in part]][:k]
        place = np.arange(1, len(hit) + 1)
        gain, ideal = (
            (hit / np.log2(place + 1)).sum(),
            (1 / np.log2(np.arange(2, min(k, count) + 2))).sum(),
        )
        precise = (hit * np.cumsum(hit) / place).sum() / min(k, count)
        first = max(hit / place)
        each.append((hit.any(), hit.sum() / count, hit.sum() / k, gain / ideal, precise, first))
    return dict(
        zip(
            (f"{name}@{k}" for name in ("hr", "recall", "precision", "ndcg", "map", "mrr")),
            np.mean(each, axis=0),
        )
    )


def worlds(values: int):
    """(scores, relevant), a few users and products, scores from `values` numbers.

    Mostly ties where they are few.
    """
    shape = st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(0, 10_000))

    def make(of):
        users, products, seed = of
        random = np.random.RandomState(seed)
        return random.randint(0, values, (users, products)).astype(float), random.rand(
            users, products
        ) < random.rand()

    return shape.map(make)


@settings(deadline=None, max_examples=80)
@given(worlds(values=3))
def test_metrics_are_their_means_over_all_orders_of_the_tied(world):
    scores, relevant = world
    ranks = make_ranks(scores, relevant)
    means = ranking.metrics(ranks, CUTOFFS)
    if not relevant.any():
        assert means == {}
        return
    each = ranking.per_user(ranks, CUTOFFS)
    for k in CUTOFFS:
        expected = [
            over_all_orders(row, wanted, k) for row, wanted in zip(scores, relevant) if wanted.any()
        ]
        for name in expected[0]:
            np.testing.assert_allclose(
                each[name], [user[name] for user in expected], atol=1e-12, err_msg=name
            )
            assert means[name] == pytest.approx(np.mean([user[name] for user in expected]))


@settings(deadline=None, max_examples=80)
@given(worlds(values=3))
def test_auc_equals_scikit_learn_which_counts_ties_half(world):
    scores, relevant = world
    both = relevant.any(axis=1) & ~relevant.all(axis=1)  # scikit-learn has no AUC for the others
    if both.any():
        auc = ranking.per_user(make_ranks(scores[both], relevant[both]), (5,))["auc"]
        np.testing.assert_allclose(
            auc,
            [roc_auc_score(wanted, row) for wanted, row in zip(relevant[both], scores[both])],
            atol=1e-12,
        )


@pytest.mark.parametrize("k", CUTOFFS)
def test_ndcg_equals_scikit_learn_where_much_ties(k):
    random = np.random.RandomState(0)
    scores, relevant = random.randint(0, 4, (50, 30)).astype(float), random.rand(50, 30) < 0.3
    relevant[:, 0] = True
    each = ranking.per_user(make_ranks(scores, relevant), (k,))[f"ndcg@{k}"]
    np.testing.assert_allclose(
        each, [ndcg_score([wanted], [row], k=k) for wanted, row in zip(relevant, scores)]
    )


@pytest.mark.parametrize("k", CUTOFFS)
def test_ndcg_and_map_equal_scikit_learn_where_nothing_ties(k):
    random = np.random.RandomState(0)
    scores = np.stack([random.permutation(12) for _ in range(20)]).astype(float)
    relevant = random.rand(20, 12) < 0.3
    relevant[:, 0] = True
    each = ranking.per_user(make_ranks(scores, relevant), (k, 12))
    np.testing.assert_allclose(
        each[f"ndcg@{k}"],
        [ndcg_score([wanted], [row], k=k) for wanted, row in zip(relevant, scores)],
    )
    np.testing.assert_allclose(
        each["map@12"],
        [average_precision_score(wanted, row) for wanted, row in zip(relevant, scores)],
    )


def test_a_perfect_and_a_hopeless_ranking():
    perfect = ranking.metrics(
        Ranks(np.array([3, 3]), np.array([1.0, 2.0]), np.array([10, 10])), (2,)
    )
    assert perfect == pytest.approx(
        dict.fromkeys(("hr@2", "recall@2", "precision@2", "ndcg@2", "map@2", "mrr@2", "auc"), 1.0)
    )
    hopeless = ranking.metrics(
        Ranks(np.array([3, 3]), np.array([9.0, 10.0]), np.array([10, 10])), (2,)
    )
    assert set(hopeless.values()) == {0.0}


def test_all_scores_equal_is_chance_level():
    """A model that knows nothing has AUC 1/2, and hits as a random order does."""
    result = ranking.metrics(make_ranks(np.zeros((1, 9)), np.arange(9)[None] < 3), (4,))
    assert result["auc"] == 0.5 and result["recall@4"] == pytest.approx(4 / 9)
    assert result["hr@4"] == pytest.approx(1 - comb(6, 4) / comb(9, 4))


def test_who_has_no_negatives_has_no_auc():
    scores, relevant = (
        np.arange(8.0).reshape(2, 4),
        np.array([[True] * 4, [False, False, False, True]]),
    )
    assert ranking.metrics(make_ranks(scores, relevant), (5,))["auc"] == 1
    alone = ranking.metrics(make_ranks(np.zeros((1, 9)), np.ones((1, 9), bool)), (5, 10))
    assert "auc" not in alone
    expected = {
        "precision@5": 1,
        "recall@5": 5 / 9,
        "ndcg@5": 1,
        "map@5": 1,
        "ndcg@10": 1,
        "precision@10": 0.9,
    }
    assert {name: alone[name] for name in expected} == pytest.approx(expected)


def test_a_large_group_of_ties():
    """Numbers that overflow a binomial coefficient: 40 of 100,000 tied products."""
    relevant = np.arange(100_000)[None] < 40
    result = ranking.metrics(make_ranks(np.zeros((1, 100_000)), relevant), (10,))
    assert result["hr@10"] == pytest.approx(
        1 - np.prod(1 - 40 / (100_000 - np.arange(10.0))), rel=1e-4
    )


def test_a_score_that_is_no_number_leaves_no_metric():
    values = ranking.per_user(
        Ranks(np.array([0, 1]), np.array([np.nan, 1]), np.array([9, 9])), (5,)
    )
    assert all(np.isnan(value[0]) and not np.isnan(value[1]) for value in values.values())


def test_nobody_relevant_no_metrics():
    none = np.zeros(0)
    assert ranking.metrics(Ranks(none.astype(int), none, none.astype(int)), (5,)) == {}
