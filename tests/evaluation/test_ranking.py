import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from tfrec.evaluation import ranking
from tfrec.evaluation.ranking import Ranks

CUTOFFS = (1, 2, 3, 5, 20)


def rank_of(score: float, others: list[float]) -> float:
    """The definition: 1 + the number scored higher + half the number of others scored equal."""
    return 1 + sum(other > score for other in others) + sum(other == score for other in others) / 2


def ranks_among(scores: np.ndarray, among: list[int], of: list[int]) -> list[float]:
    return [rank_of(scores[p], [scores[q] for q in among if q != p]) for p in of]


def make_ranks(scores: np.ndarray, relevant: np.ndarray) -> Ranks:
    """scores, relevant [U, P]; all products are candidates."""
    entries = []
    for user in range(len(scores)):
        ranks = ranks_among(scores[user], range(scores.shape[1]), np.flatnonzero(relevant[user]))
        entries += [(user, rank, scores.shape[1]) for rank in ranks]
    user, rank, candidates = np.array(entries, float).reshape(-1, 3).T
    return Ranks(user.astype(int), rank, candidates.astype(int))


def slow_metrics(scores: np.ndarray, relevant: np.ndarray, k: int) -> list[dict[str, float]]:
    """The metrics of each user with a relevant product, from their definitions."""
    users = []
    for row, wanted in zip(scores, relevant):
        products = np.flatnonzero(wanted)
        if not len(products):
            continue
        ranks = ranks_among(row, range(len(row)), products)
        among_relevant = ranks_among(row, products, products)
        hits = [rank for rank in ranks if rank <= k]
        reachable = min(k, len(products))
        users.append(
            {
                f"hr@{k}": 1.0 if hits else 0.0,
                f"recall@{k}": len(hits) / len(products),
                f"precision@{k}": len(hits) / k,
                f"ndcg@{k}": sum(1 / np.log2(r + 1) for r in hits) / sum(1 / np.log2(i + 1) for i in range(1, reachable + 1)),
                f"map@{k}": sum(own / r for own, r in zip(among_relevant, ranks) if r <= k) / reachable,
                f"mrr@{k}": 1 / min(ranks) if hits else 0.0,
            }
        )
    return users


def worlds(values: int):
    """(scores, relevant), a few users and products, scores from `values` numbers: mostly ties where they are few."""
    shape = st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(0, 10_000))

    def make(of):
        users, products, seed = of
        random = np.random.RandomState(seed)
        return random.randint(0, values, (users, products)).astype(float), random.rand(users, products) < random.rand()

    return shape.map(make)


@settings(deadline=None, max_examples=80)
@given(worlds(values=3))
def test_metrics_equal_a_loop_over_users_ties_included(world):
    scores, relevant = world
    ranks = make_ranks(scores, relevant)
    means = ranking.metrics(ranks, CUTOFFS)
    if not relevant.any():
        assert means == {}
        return
    each = ranking.per_user(ranks, CUTOFFS)
    for k in CUTOFFS:
        expected = slow_metrics(scores, relevant, k)
        for name in expected[0]:
            np.testing.assert_allclose(each[name], [user[name] for user in expected], err_msg=name)
            assert means[name] == pytest.approx(np.mean([user[name] for user in expected]))


@settings(deadline=None, max_examples=80)
@given(worlds(values=3))
def test_auc_equals_scikit_learn_which_counts_ties_half(world):
    scores, relevant = world
    both = relevant.any(axis=1) & ~relevant.all(axis=1)  # scikit-learn has no AUC for the others
    if both.any():
        auc = ranking.per_user(make_ranks(scores[both], relevant[both]), (5,))["auc"]
        np.testing.assert_allclose(auc, [roc_auc_score(wanted, row) for wanted, row in zip(relevant[both], scores[both])], atol=1e-12)


@pytest.mark.parametrize("k", CUTOFFS)
def test_ndcg_and_map_equal_scikit_learn_where_nothing_ties(k):
    random = np.random.RandomState(0)
    scores = np.stack([random.permutation(12) for _ in range(20)]).astype(float)
    relevant = random.rand(20, 12) < 0.3
    relevant[:, 0] = True
    each = ranking.per_user(make_ranks(scores, relevant), (k, 12))
    np.testing.assert_allclose(each[f"ndcg@{k}"], [ndcg_score([wanted], [row], k=k) for wanted, row in zip(relevant, scores)])
    np.testing.assert_allclose(each["map@12"], [average_precision_score(wanted, row) for wanted, row in zip(relevant, scores)])


def test_a_perfect_and_a_hopeless_ranking():
    perfect = ranking.metrics(Ranks(np.array([3, 3]), np.array([1.0, 2.0]), np.array([10, 10])), (2,))
    assert perfect == pytest.approx(dict.fromkeys(("hr@2", "recall@2", "precision@2", "ndcg@2", "map@2", "mrr@2", "auc"), 1.0))
    hopeless = ranking.metrics(Ranks(np.array([3, 3]), np.array([9.0, 10.0]), np.array([10, 10])), (2,))
    assert set(hopeless.values()) == {0.0}


def test_all_scores_equal_is_chance_level():
    """A model that knows nothing has AUC 1/2 and hits nothing: it stands in the middle, not at the top."""
    result = ranking.metrics(make_ranks(np.zeros((1, 9)), np.arange(9)[None] < 3), (4,))
    assert (result["auc"], result["hr@4"]) == (0.5, 0)


def test_nobody_relevant_no_metrics():
    none = np.zeros(0)
    assert ranking.metrics(Ranks(none.astype(int), none, none.astype(int)), (5,)) == {}
