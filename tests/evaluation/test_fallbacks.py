"""What is measured is what is served: also of users and products without training rows."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, make_split, set_features
from tfrec.data import targets
from tfrec.evaluation import fallbacks
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.fallbacks import SOURCES
from tfrec.experiments import parts, per_user
from tfrec.experiments.config import make_config
from tfrec.serving.export import ServingModule

NEW_USERS, NEW_PRODUCTS = (3, 7), (4,)


def world(name, task, **settings):
    """(evaluator, server).

    Users 3 and 7 and product 4 have no training rows; of user 7 nothing else is known either.
    """
    dataset = make_dataset(user_features=2)
    rows = dataset.interactions
    set_features(dataset, [3, 7], [[1, 0], [0, 0]])
    new = np.isin(rows.user, NEW_USERS) | np.isin(rows.product, NEW_PRODUCTS)
    warm = np.flatnonzero(~new)
    test, validation = np.sort(np.r_[np.flatnonzero(new), warm[:8]]), warm[8:12]
    rows.rating[test[0]], rows.rating[validation[0]] = 9.0, 8.0  # off the scale of training
    split = make_split(dataset, warm[12:], validation, test)
    tf.keras.utils.set_random_seed(0)
    config = make_config(
        model=name, task=task, loss="mse" if task == "rating" else "sigmoid", **settings
    ).replace(embedding_dim=4)
    model = parts.make_trained(split.train, config)
    for weight in model.trainable_weights:
        seed = [1, len(weight.path)]
        weight.assign_add(tf.random.stateless_normal(weight.shape, seed, stddev=1.0))
    answers = fallbacks.make(model, split.train) if config.evaluation.fallbacks else None
    evaluator = Evaluator(model, split, config.evaluation, fallbacks=answers)
    return evaluator, ServingModule(model, split)


@pytest.mark.parametrize("task", ["rating", "ranking"])
@pytest.mark.parametrize("name", ["hybrid", "mf"])
def test_tested_rows_and_lists_are_answered_as_they_are_served(name, task):
    evaluator, server = world(
        name, task, k=(3, 9), **({"full_ranking": True} if task == "rating" else {})
    )
    catalog, rows, predictions = evaluator.catalog, evaluator.rows, evaluator.predictions()
    served = server.score(
        tf.constant(catalog.user_ids[rows.user]),
        tf.constant(catalog.product_ids[rows.product]),
        tf.constant(rows.context),
        tf.zeros([0], tf.int64),
    )
    scores = predictions.scores
    if task == "rating":
        scores = np.clip(scores, *evaluator.train.stats.range)
    np.testing.assert_allclose(scores, served["rating"], atol=1e-5)
    sources = served["source"].numpy().astype(str)
    assert np.array(SOURCES)[predictions.source].tolist() == sources.tolist()
    assert set(sources) == (
        {"model", "content", "demographic", "popularity"}
        if name == "hybrid"
        else {"model", "demographic", "popularity"}
    )

    ranked = np.concatenate([query.user for query in evaluator._queries])
    context = np.concatenate([query.context for query in evaluator._queries])
    lists = tf.zeros([0, 0], tf.int64), tf.zeros([0], tf.int64)
    served = server.recommend(
        tf.constant(catalog.user_ids[ranked]),
        tf.constant(9),
        tf.constant(context),
        tf.zeros([0], tf.int64),
        *lists,
        tf.constant(True),
    )
    top = np.where(
        predictions.ranking.top < 0, -(2**63), catalog.product_ids[predictions.ranking.top]
    )
    np.testing.assert_array_equal(top, served["product"])
    assert set(served["source"].numpy()) == {b"model", b"demographic", b"popularity"}
    if task == "rating":
        arrays = per_user.metrics(predictions, evaluator)
        assert np.sqrt(np.mean(arrays["row_error"] ** 2)) == pytest.approx(
            evaluator.metrics(predictions)["rmse"]
        )
        found = evaluator.slices(predictions)["answers"]
        assert set(found) == set(sources)
        for source, figures in found.items():
            error = (scores - rows.rating)[sources == source]
            assert figures == {
                "rows": len(error),
                "rmse": pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5),
            }


def test_without_fallbacks_the_bare_model_is_judged():
    evaluator, _ = world("mf", "rating", fallbacks=False)
    rows, predictions = evaluator.rows, evaluator.predictions()
    batch = {"user": tf.constant(rows.user), "product": tf.constant(rows.product)}
    scaling = targets.fit("standard", evaluator.train.stats)
    bare = scaling.to_ratings(evaluator.model(batch).numpy(), rows.product)
    np.testing.assert_allclose(predictions.scores, bare, rtol=1e-5)
    assert "answers" not in evaluator.slices(predictions)
    assert not np.allclose(world("mf", "rating")[0].scores(), bare)
