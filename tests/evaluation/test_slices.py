import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, sparse
from tests.evaluation.test_evaluate import make_model
from tfrec.evaluation import ranking, slices
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.ranking import Ranks
from tfrec.experiments.config import make_config

THIRDS = ("head", "middle", "tail")
counts = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(np.array)


@settings(deadline=None)
@given(counts)
def test_each_third_holds_a_third_of_the_interactions(count):
    """But for the one that lies across a cut."""
    groups = slices.groups(count)
    assert (groups["warm"] == (count > 0)).all()
    assert (groups["cold"] == (count == 0)).all()
    assert (sum(groups[name].astype(int) for name in THIRDS) == groups["warm"]).all()
    sums = [int(count[groups[name]].sum()) for name in THIRDS]
    for held in (sums[0], sums[0] + sums[1]):
        assert any(abs(held - count.sum() * part / 3) <= count.max() for part in (1, 2, 3))
    assert sums[0] >= count.sum() / 3
    assert sums[0] + sums[1] >= 2 * count.sum() / 3
    for upper, lower in (THIRDS[:2], THIRDS[1:], THIRDS[::2]):
        if groups[upper].any() and groups[lower].any():
            assert count[groups[upper]].min() >= count[groups[lower]].max()


def test_thirds_of_equals_are_equal_and_a_giant_is_the_head():
    assert [int(slices.groups(np.full(9, 5))[name].sum()) for name in THIRDS] == [3, 3, 3]
    giant = slices.groups(np.array([1, 98, 1, 0]))
    assert {name: np.flatnonzero(giant[name]).tolist() for name in (*THIRDS, "cold")} == {
        "head": [1],
        "middle": [],
        "tail": [0, 2],
        "cold": [3],
    }


def slow_slices(who, trained, rows, scores, ranked, k):
    """One slice at a time, one row at a time, from the definitions."""
    owners, count = getattr(rows, who), trained.counts(who)
    column = ("user", "product").index(who)
    result = {}
    for name, member in slices.groups(count).items():
        errors = [
            (scores[row] - rows.rating[row]) ** 2 for row in range(len(rows)) if member[owners[row]]
        ]
        ranks = {}
        for pair, rank in zip(ranked.pairs, ranked.ranks.rank):
            if member[pair[column]]:
                ranks.setdefault(pair[0], []).append(rank)
        if not errors and not ranks:
            continue
        result[name] = {"rows": len(errors)}
        if errors:
            result[name]["rmse"] = np.sqrt(np.mean(errors))
        if ranks:
            hits = [[rank for rank in own if rank <= k] for own in ranks.values()]
            ideal = [
                sum(1 / np.log2(i + 2) for i in range(min(k, len(own)))) for own in ranks.values()
            ]
            result[name][f"ndcg@{k}"] = np.mean(
                [sum(1 / np.log2(r + 1) for r in own) / best for own, best in zip(hits, ideal)]
            )
            result[name][f"hr@{k}"] = np.mean([bool(own) for own in hits])
            result[name][f"recall@{k}"] = np.mean(
                [len(own) / len(all_) for own, all_ in zip(hits, ranks.values())]
            )
    return result


@pytest.mark.parametrize("rule", ("random", "cold_user", "cold_product"))
@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_slices_equal_a_loop(rule, task):
    data = make_dataset(num_users=30, num_products=20, rows=300)
    asked = {"full_ranking": True} if task == "rating" else {}
    config = make_config(split=rule, k=(5, 3), task=task, **asked)
    split = data.split_by(config.data)
    model, _ = make_model("mf", data)
    evaluator = Evaluator(model, split, config.evaluation, task=task)
    predictions = evaluator.predictions()
    found = evaluator.slices(predictions)
    clipped = np.clip(predictions.scores, *split.train.stats.range)
    for who in ("user", "product"):
        expected = slow_slices(who, split.train, split.test, clipped, predictions.ranking, 3)
        if task == "ranking":
            expected = {
                name: {key: value for key, value in figures.items() if key != "rmse"}
                for name, figures in expected.items()
            }
        assert found[f"{who}s"].keys() == expected.keys()
        for name, figures in expected.items():
            assert found[f"{who}s"][name] == pytest.approx(figures, rel=1e-6)
    if rule == "cold_user":
        assert found["users"].keys() == {
            "cold"
        }  # nobody who is tested was trained on; the empty slices are left out
        assert "head" in found["products"]
    if rule == "cold_product":
        assert found["products"].keys() == {"cold"}


def test_who_has_validation_rows_only_is_cold():
    data = make_dataset()
    model, task = make_model("mf", data)
    test = np.flatnonzero(data.interactions.user == 0)
    own, others = test[:1], np.flatnonzero(data.interactions.user != 0)
    split = make_split(data, others, own, test[1:])
    evaluator = Evaluator(model, split, make_config().evaluation, task=task)
    assert evaluator.slices(evaluator.predictions())["users"].keys() == {"cold"}


def test_the_whole_is_the_warm_and_the_cold_together():
    ranks = Ranks(np.array([0, 0, 1, 2]), np.array([1.0, 5.0, 2.0, 9.0]), np.full(4, 10))
    none = np.zeros(0, np.float32)
    found = slices.metrics(np.array([3, 0, 2]), none.astype(int), none, None, ranks.user, ranks, 3)
    assert found["warm"]["hr@3"] == 0.5
    assert found["cold"].keys() == {"rows", "ndcg@3", "hr@3", "recall@3"}
    assert (found["warm"]["hr@3"] * 2 + found["cold"]["hr@3"]) / 3 == ranking.metrics(ranks, (3,))[
        "hr@3"
    ]


def slow_lists(top, count, features, k):
    coverage, novelty, distances = set(), [], []
    for products in top:
        own = [product for product in products[:k] if product >= 0]
        coverage |= set(own)
        if own:
            novelty.append(
                np.mean([-np.log2(max(count[product], 1) / sum(count)) for product in own])
            )
        pairs = []
        for i, a in enumerate(own):
            for b in own[:i]:
                lengths = np.linalg.norm(features[a]) * np.linalg.norm(features[b])
                pairs.append(1 - (features[a] @ features[b] / lengths if lengths else 0))
        if pairs:
            distances.append(np.mean(pairs))
    return {
        f"coverage@{k}": len(coverage) / len(count),
        f"novelty@{k}": np.mean(novelty),
        f"diversity@{k}": np.mean(distances),
    }


@pytest.mark.parametrize("block", (1, 50, 4_000_000))
def test_list_metrics_equal_a_loop_over_lists_in_blocks_of_any_size(block, monkeypatch):
    """Short lists, empty ones, products without features or without training rows."""
    monkeypatch.setattr(slices, "ENTRIES_AT_ONCE", block)
    random = np.random.RandomState(0)
    top = np.stack([random.permutation(20)[:6] for _ in range(15)]).astype(np.int32)
    for row, size in ((0, 0), (1, 1), (2, 2)):
        top[row, size:] = -1
    count, features = random.randint(0, 9, 20), random.randint(0, 2, (20, 3)).astype(np.float32)
    features[:3], count[:2] = 0, 0
    found = slices.beyond_accuracy(top, count, sparse(features), (2, 5, 6))
    expected = {}
    for k in (2, 5, 6):
        expected |= slow_lists(top, count, features, k)
    assert found == pytest.approx(expected)


def test_the_same_list_for_all_covers_little_and_no_features_no_diversity():
    found = slices.beyond_accuracy(
        np.tile(np.arange(2), (5, 1)), np.array([2, 2, 4, 0]), sparse(np.zeros((4, 0))), (2,)
    )
    assert found == {"coverage@2": 0.5, "novelty@2": 2.0}
    assert (
        slices.beyond_accuracy(
            np.zeros((0, 2), np.int32), np.ones(4, int), sparse(np.ones((4, 1))), (2,)
        )
        == {}
    )
    assert "diversity@1" not in slices.beyond_accuracy(
        np.zeros((3, 1), int), np.ones(4, int), sparse(np.ones((4, 1))), (1,)
    )
