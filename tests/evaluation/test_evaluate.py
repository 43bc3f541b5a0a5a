import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, make_split, replace, with_output
from tfrec.data import targets
from tfrec.data.dataset import Dataset
from tfrec.data.interactions import Split
from tfrec.evaluation import evaluate, ranking, rating, slices
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.models.base import Recommender
from tfrec.models.hybrid import Hybrid
from tfrec.models.mf import MatrixFactorization
from tfrec.models.output import Output
from tfrec.models.popularity import Popularity

TESTED, FITTED = np.arange(0, 25), np.arange(20, 60)  # the rows 20 .. 24 are both


class Seasonal(Recommender):
    """A product is worth what the context makes of it.

    [B, C] [C, P]. Here, unlike in the hybrid, the context changes the order.
    """

    def __init__(self, train, settings) -> None:
        super().__init__(name="seasonal")
        self.table = self.add_weight(
            shape=(3, train.num_products), initializer="uniform", name="table"
        )

    def score(self, batch, products, training=False):
        context = tf.pad(batch["context"], [[0, 0], [0, 1]], constant_values=1.0)
        scores = tf.matmul(context, self.table.value)
        if products is None:
            return scores
        return (
            tf.gather(scores, products, batch_dims=1)
            if products.shape.rank == 2
            else tf.gather(scores, products, axis=1)
        )


def randomize(model: Recommender, seed: int = 0) -> Recommender:
    random = np.random.RandomState(seed)
    for weight in model.trainable_weights:
        weight.assign(random.normal(size=weight.shape))
    return model


def make_model(name: str, dataset: Dataset) -> tuple[Recommender, str]:
    """(model, its task)"""
    rows = dataset.interactions
    if name == "popularity":
        model = Popularity.from_data(rows.take(FITTED), "ranking")
        model.fit_closed_form(model.data)
        return model, "ranking"
    if name == "seasonal":
        return randomize(Seasonal.from_data(rows, "ranking")), "ranking"
    part = Hybrid if name == "hybrid" else MatrixFactorization
    return randomize(part.from_data(rows, embedding_dim=4)), "rating"


def split_of(dataset: Dataset, rows=TESTED, fitted=FITTED) -> Split:
    return make_split(dataset, fitted, test=rows)


def scaling_of(dataset: Dataset, kind: str) -> targets.Scaling:
    return targets.fit(kind, split_of(dataset).train.stats)


def make_evaluator(
    model: Recommender,
    task: str,
    dataset: Dataset,
    rows=TESTED,
    fitted=FITTED,
    scaling: str = "none",
    **settings,
) -> Evaluator:
    split = split_of(dataset, rows, fitted)
    model.output = Output()
    if task == "rating":
        with_output(model, split.train, scaling)
    return Evaluator(model, split, EvaluationSettings(**settings), task=task)


def context_of(dataset: Dataset, user: int, rows: np.ndarray) -> np.ndarray:
    """That of the user's first tested row, by time and then by place in the file."""
    data = dataset.interactions
    own = [row for row in rows if data.user[row] == user]
    return data.context[
        min(own, key=lambda row: (0 if data.timestamp is None else data.timestamp[row], row))
    ]


def slow_ranks(
    model: Recommender,
    dataset: Dataset,
    task: str,
    threshold: float = 0.0,
    static: bool = False,
    scaling: str = "none",
    masked: bool = True,
):
    """[(user, rank, candidates)], one user at a time."""
    entries, catalog, data = [], dataset.catalog, dataset.interactions
    for user in range(catalog.num_users):
        seen = {data.product[row] for row in FITTED if data.user[row] == user and masked}
        tested = {
            data.product[row]
            for row in TESTED
            if data.user[row] == user and data.rating[row] >= threshold
        }
        if not tested - seen:
            continue
        context = catalog.default_context if static else context_of(dataset, user, TESTED)
        batch = {
            "user": tf.constant([user]),
            "context": context[None],
            "user_features": catalog.user_features.dense()[[user]],
        }
        scores = model.score_all(batch).numpy()[0]
        if task == "rating":
            of = scaling_of(dataset, scaling)
            scores = of.to_ratings(scores, np.arange(catalog.num_products))
        candidates = [product for product in range(catalog.num_products) if product not in seen]
        for product in sorted(tested - seen):
            higher = sum(scores[other] > scores[product] for other in candidates)
            equal = sum(scores[other] == scores[product] for other in candidates) - 1
            entries.append((user, 1 + higher + equal / 2, len(candidates)))
    return entries


def entries_of(ranks: ranking.Ranks):
    return list(zip(ranks.user, ranks.rank, ranks.candidates))


@pytest.mark.parametrize("block", (1, 60, 16_000_000))
@pytest.mark.parametrize("name", ("popularity", "mf", "hybrid", "seasonal"))
def test_ranks_equal_a_loop_over_users_in_blocks_of_any_size(name, block, monkeypatch):
    monkeypatch.setattr(evaluate, "USERS_AT_LEAST", 1)
    monkeypatch.setattr(evaluate, "SCORES_AT_ONCE", block)
    data = make_dataset(user_features=2)
    model, task = make_model(name, data)
    evaluator = make_evaluator(model, task, data)
    expected = slow_ranks(model, data, task)
    assert entries_of(evaluator.full_ranking().ranks) == expected
    assert sum(len(query.relevant) for query in evaluator._queries) == len(expected)
    blocks = [len(query.user) for query in evaluator._queries]
    of_user = data.catalog.num_products * model.floats_per_score
    assert max(blocks) * of_user <= max(block, of_user)
    assert {1: max(blocks) == 1, 60: len(blocks) > 1}.get(block, len(blocks) == 1)


@pytest.mark.parametrize("block", (1, 60, 16_000_000))
@pytest.mark.parametrize("k", (4, 100))
def test_the_lists_of_the_same_pass_hold_the_best_products_that_are_not_masked(
    block, k, monkeypatch
):
    monkeypatch.setattr(evaluate, "USERS_AT_LEAST", 1)
    monkeypatch.setattr(evaluate, "SCORES_AT_ONCE", block)
    data = make_dataset()
    model, task = make_model("mf", data)
    found = make_evaluator(model, task, data, k=(2, k)).full_ranking()
    users = np.unique(found.pairs[:, 0])
    assert found.top.shape == (len(users), min(k, data.catalog.num_products))
    for user, products in zip(users, found.top):
        seen = set(data.interactions.product[FITTED][data.interactions.user[FITTED] == user])
        scores = model.score_all({"user": tf.constant([user])}).numpy()[0]
        expected = [product for product in np.argsort(-scores) if product not in seen][:k]
        assert products.tolist() == expected + [-1] * (len(products) - len(expected))
    for (user, product), rank in zip(found.pairs, found.ranks.rank):
        place = np.flatnonzero(found.top[np.searchsorted(users, user)] == product)
        assert place.tolist() == ([rank - 1] if rank <= k else [])


def test_popularity_has_ties(dataset):
    """So the comparison above has seen some."""
    assert any(
        rank % 1
        for _, rank, _ in slow_ranks(make_model("popularity", dataset)[0], dataset, "ranking")
    )


def test_what_was_fitted_is_never_relevant(dataset):
    both = np.arange(20, 25)
    model, task = make_model("mf", dataset)
    assert make_evaluator(model, task, dataset, rows=both).ranking_metrics() == {}
    everything = entries_of(make_evaluator(model, task, dataset).full_ranking().ranks)
    assert len(everything) == len(TESTED) - len(both)
    assert everything == entries_of(
        make_evaluator(model, task, dataset, rows=np.arange(20)).full_ranking().ranks
    )


def test_a_product_rated_twice_counts_once():
    """The same user and product in two rows, fitted or tested."""
    data = make_dataset()
    model, task = make_model("mf", data)
    twice = make_evaluator(
        model, task, data, rows=np.r_[TESTED, TESTED], fitted=np.r_[FITTED, FITTED]
    )
    assert entries_of(twice.full_ranking().ranks) == slow_ranks(model, data, task)


@pytest.mark.parametrize("threshold", (0.5, 3.0, 3.5, 5.0))
def test_rows_below_the_relevance_threshold_are_not_relevant(dataset, threshold):
    model, task = make_model("mf", dataset)
    found = entries_of(
        make_evaluator(model, task, dataset, relevance_threshold=threshold).full_ranking().ranks
    )
    assert found == slow_ranks(model, dataset, task, threshold)
    assert len(found) == sum(dataset.interactions.rating[:20] >= threshold)


def test_a_threshold_that_nothing_reaches_leaves_no_ranking_metrics(dataset):
    assert (
        make_evaluator(
            *make_model("mf", dataset), dataset, relevance_threshold=5.5
        ).ranking_metrics()
        == {}
    )


def test_each_part_masks_the_parts_before_it(dataset):
    """And validation knows nothing of the test rows."""
    model, task = make_model("mf", dataset)
    train, validation = FITTED[:-15], FITTED[-15:]
    split, config = make_split(dataset, train, validation, TESTED), EvaluationSettings()
    tested = Evaluator(model, split, config).full_ranking().ranks
    assert entries_of(tested) == slow_ranks(model, dataset, task)
    alone = make_evaluator(model, task, dataset, rows=validation, fitted=train)
    validated = Evaluator(model, split, config, part="validation")
    np.testing.assert_array_equal(validated.scores(), alone.scores())
    assert entries_of(validated.full_ranking().ranks) == entries_of(alone.full_ranking().ranks)


def test_what_users_have_already_is_ranked_where_nothing_is_masked(dataset):
    model, task = make_model("mf", dataset)
    found = entries_of(make_evaluator(model, task, dataset, mask_seen=False).full_ranking().ranks)
    assert found == slow_ranks(model, dataset, task, masked=False)
    assert len(found) > len(slow_ranks(model, dataset, task))


def test_products_that_the_user_dislikes_are_masked(dataset):
    model, task = make_model("mf", dataset)
    split = split_of(dataset, TESTED, FITTED)
    likes = split.train.rating >= 3
    split.train, disliked = split.train.take(likes), split.train.take(~likes)
    split.train.disliked = disliked
    found = Evaluator(model, split, EvaluationSettings(), task=task).full_ranking().ranks
    assert entries_of(found) == slow_ranks(model, dataset, task)


@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_scaled_targets_are_ranked_in_rating_units_logits_as_they_are(dataset, task):
    kind = "product_minmax"
    model, _ = make_model("mf", dataset)
    found = entries_of(make_evaluator(model, task, dataset, scaling=kind).full_ranking().ranks)
    assert found == slow_ranks(model, dataset, task, scaling=kind)
    assert (found == slow_ranks(model, dataset, task)) == (
        task == "ranking"
    )  # the scaling changes the order of ratings


@pytest.mark.parametrize(
    "timestamp",
    (None, np.zeros(60, np.int64), np.arange(60)[::-1], np.arange(60) // 10 * -1),
    ids=("none", "equal", "falling", "ties"),
)
def test_the_context_of_a_ranking_is_that_of_the_first_tested_row_or_the_static_one(
    dataset, timestamp
):
    data = replace(dataset, timestamp=timestamp)
    model, task = make_model("seasonal", data)
    true = entries_of(
        make_evaluator(model, task, data, evaluation_context="true").full_ranking().ranks
    )
    static = entries_of(
        make_evaluator(model, task, data, evaluation_context="static").full_ranking().ranks
    )
    assert true == slow_ranks(model, data, task)
    assert static == slow_ranks(model, data, task, static=True)
    assert true != static


@pytest.mark.parametrize("rows_at_once", (7, 25, 65_536))
@pytest.mark.parametrize("static", (False, True))
def test_scores_are_those_of_the_rows_in_their_order(static, rows_at_once, monkeypatch):
    monkeypatch.setattr(evaluate, "ROWS_AT_ONCE", rows_at_once)
    kind = "product_minmax"
    data = replace(make_dataset(user_features=2), default_context=np.array([1, 0], np.float32))
    catalog, own = data.catalog, data.interactions
    model, task = make_model("hybrid", data)
    rows = TESTED[::-1].copy()
    context = (
        np.broadcast_to(catalog.default_context, (len(rows), 2)) if static else own.context[rows]
    )
    user, product = own.user[rows], own.product[rows]
    batch = {
        "user": user,
        "product": product,
        "features": catalog.features.dense()[product],
        "user_features": catalog.user_features.dense()[user],
    }
    expected = scaling_of(data, kind).to_ratings(
        model(
            {name: tf.constant(column) for name, column in (batch | {"context": context}).items()}
        ).numpy(),
        product,
    )
    evaluator = make_evaluator(
        model,
        task,
        data,
        rows,
        scaling=kind,
        evaluation_context="static" if static else "true",
    )
    np.testing.assert_allclose(
        evaluator.scores(), expected, rtol=1e-5, atol=1e-5
    )  # near 0 the rest of large numbers' difference


def test_logits_are_not_unscaled(dataset):
    kind = "global_minmax"
    model, _ = make_model("mf", dataset)
    logits = make_evaluator(model, "ranking", dataset, scaling=kind).scores()
    ratings = make_evaluator(model, "rating", dataset, scaling=kind).scores()
    scaling = scaling_of(dataset, kind)
    np.testing.assert_allclose(
        ratings, scaling.to_ratings(logits, dataset.interactions.product[TESTED]), rtol=1e-6
    )
    assert np.abs(ratings - logits).max() > 0.1


def test_metrics_of_each_task(dataset):
    model, _ = make_model("mf", dataset)
    rated = make_evaluator(model, "rating", dataset, k=(3,), relevance_threshold=3.0)
    ranked = make_evaluator(model, "ranking", dataset, k=(3,), relevance_threshold=3.0)
    true = dataset.interactions.rating[TESTED]
    seen = dataset.interactions.rating[FITTED]
    of_ranks = ranking.metrics(rated.full_ranking().ranks, (3,))
    of_lists = slices.beyond_accuracy(
        rated.full_ranking().top,
        np.bincount(dataset.interactions.product[FITTED], minlength=9),
        dataset.catalog.features,
        (3,),
    )
    of_reference = rating.reference_metrics(dataset.interactions.user[TESTED], true, rated.scores())
    of_ratings = rating.metrics(true, rated.scores(), seen.min(), seen.max())
    of_ratings |= rating.concordance(dataset.interactions.user[TESTED], true, rated.scores())
    assert {"rmse", "fcp"} < of_ratings.keys()
    assert of_lists.keys() == {"coverage@3", "novelty@3", "diversity@3"}
    assert rated.metrics() == of_ratings | of_reference
    asked = make_evaluator(
        model, "rating", dataset, k=(3,), relevance_threshold=3.0, full_ranking=True
    )
    assert asked.metrics() == of_ratings | of_ranks | of_lists | of_reference
    assert ranked.metrics() == of_ranks | of_lists | of_reference


def test_ratings_are_clipped_to_the_range_that_was_fitted(dataset):
    fitted = np.flatnonzero((dataset.interactions.rating >= 2) & (dataset.interactions.rating <= 3))
    model, task = make_model("mf", dataset)
    evaluator = make_evaluator(model, task, dataset, fitted=fitted)
    error = np.clip(evaluator.scores(), 2, 3) - dataset.interactions.rating[TESTED]
    assert evaluator.rating_metrics()["mae"] == pytest.approx(np.abs(error).mean())


def test_no_rows_no_metrics(dataset):
    model, _ = make_model("mf", dataset)
    assert make_evaluator(model, "rating", dataset, rows=np.zeros(0, int)).metrics() == {}


def test_evaluation_follows_the_weights(dataset):
    """The loop asks the same evaluator after each epoch."""
    model, task = make_model("mf", dataset)
    evaluator = make_evaluator(model, task, dataset)
    before = evaluator.metrics()
    randomize(model, seed=1)
    after = evaluator.metrics()
    assert before != after
    assert after == make_evaluator(model, task, dataset).metrics()


def test_scores_that_are_not_numbers_make_metrics_that_are_not_numbers(dataset):
    """A diverged model must not win: the loop stops at such a validation figure."""
    model, task = make_model("mf", dataset)
    model.users.table.assign(tf.fill(model.users.table.shape, np.nan))
    result = make_evaluator(model, task, dataset, k=(3,)).ranking_metrics()
    assert np.isnan(list(result.values())).all()


def test_static_evaluation_does_not_know_the_day_as_serving_does_not(dataset):
    """hybrid's term user_day_bias reads it."""
    data = replace(dataset, timestamp=np.zeros(len(dataset), np.int64))
    later = replace(data, timestamp=data.interactions.timestamp + 7 * 86_400)
    model = Hybrid.from_data(split_of(data).train, terms=("bias", "user_day_bias"))
    model.user_day_bias.bias.assign(np.linspace(1, 2, model.user_day_bias.bias.shape[0]))
    scores = [
        make_evaluator(model, "rating", of, evaluation_context=context).scores()
        for of in (data, later)
        for context in ("true", "static")
    ]
    np.testing.assert_array_equal(scores[1], scores[3])
    np.testing.assert_array_equal(scores[1], scores[2])
    assert not np.allclose(scores[0], scores[2])
