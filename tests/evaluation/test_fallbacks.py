"""What is measured is what is served: also of users and products without training rows."""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.config import make_config
from tfrec.data.splits import Rows
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.fallbacks import SOURCES
from tfrec.experiments import run, users
from tfrec.models.hybrid import Hybrid
from tfrec.models.mf import MatrixFactorization

NEW_USERS, NEW_PRODUCTS = (3, 7), (4,)


def world(name, task, **settings):
    """(evaluator, server, config).

    Users 3 and 7 and product 4 have no training rows; of user 7 nothing else is known either.
    """
    dataset = make_dataset(user_features=2)
    dataset.user_features[[3, 7]] = [[1, 0], [0, 0]]
    new = np.isin(dataset.user, NEW_USERS) | np.isin(dataset.product, NEW_PRODUCTS)
    warm = np.flatnonzero(~new)
    rows = Rows(warm[12:], warm[8:12], np.sort(np.r_[np.flatnonzero(new), warm[:8]]))
    dataset.rating[rows.test[0]], dataset.rating[rows.validation[0]] = (
        9.0,
        8.0,
    )  # off the scale of training
    dataset = dataset.with_scaling("standard" if task == "rating" else "none", rows.train)
    tf.keras.utils.set_random_seed(0)
    if name == "hybrid":
        model = Hybrid(dataset.num_users, dataset.features, 2, num_user_features=2, dim=4)
    else:
        model = MatrixFactorization(dataset.num_users, dataset.num_products, dim=3)
    for weight in model.trainable_weights:
        weight.assign_add(
            tf.random.stateless_normal(weight.shape, [1, len(weight.path)], stddev=1.0)
        )
    config = make_config(task=task, loss="mse" if task == "rating" else "sigmoid", **settings)
    loss, baselines = (
        run.make_loss(model, dataset, rows, config),
        run.fit_baselines(dataset, rows.train),
    )
    seen = np.sort(np.r_[rows.train, rows.validation])
    fallbacks = (
        run.make_fallbacks(baselines, dataset, rows, config)
        if config.evaluation.fallbacks
        else None
    )
    evaluator = Evaluator(
        model, task, dataset, rows.test, seen, config.evaluation, rows.train, loss.decode, fallbacks
    )
    return evaluator, run.make_server(model, loss, baselines, dataset, rows, config), rows, config


@pytest.mark.parametrize("task", ["rating", "ranking"])
@pytest.mark.parametrize("name", ["hybrid", "mf"])
def test_tested_rows_and_lists_are_answered_as_they_are_served(name, task):
    evaluator, server, rows, config = world(name, task, k=(3, 9))
    data, outcome = evaluator.dataset, evaluator.outcome()
    user, product = data.user_ids[data.user[rows.test]], data.product_ids[data.product[rows.test]]
    served = server.score(
        tf.constant(user),
        tf.constant(product),
        tf.constant(data.context[rows.test]),
        tf.zeros([0], tf.int64),
    )
    scores = np.clip(outcome.scores, *evaluator._scale()) if task == "rating" else outcome.scores
    np.testing.assert_allclose(scores, served["rating"], atol=1e-5)
    sources = served["source"].numpy().astype(str)
    assert np.array(SOURCES)[outcome.source].tolist() == sources.tolist()
    assert set(sources) == (
        {"model", "content", "knowledge", "popularity"}
        if name == "hybrid"
        else {"model", "knowledge", "popularity"}
    )

    ranked = np.concatenate([query.user for query in evaluator._queries])
    context = np.concatenate([query.context for query in evaluator._queries])
    lists = tf.zeros([0, 0], tf.int64), tf.zeros([0], tf.int64)
    served = server.recommend(
        tf.constant(data.user_ids[ranked]),
        tf.constant(9),
        tf.constant(context),
        tf.zeros([0], tf.int64),
        *lists,
        tf.constant(True),
    )
    top = np.where(outcome.ranking.top < 0, -(2**63), data.product_ids[outcome.ranking.top])
    np.testing.assert_array_equal(top, served["product"])
    assert set(served["source"].numpy()) == {b"model", b"knowledge", b"popularity"}
    if task == "rating":
        arrays = users.figures(outcome, data, rows, config)
        assert np.sqrt(arrays["squared_error"].sum() / len(rows.test)) == pytest.approx(
            evaluator.metrics(outcome)["rmse"]
        )
        found = evaluator.slices(outcome)["answers"]
        assert set(found) == set(sources)
        for source, figures in found.items():
            error = (scores - data.rating[rows.test])[sources == source]
            assert figures == {
                "rows": len(error),
                "rmse": pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-5),
            }


def test_without_fallbacks_the_bare_model_is_judged():
    evaluator, _, rows, _ = world("mf", "rating", fallbacks=False)
    data, outcome = evaluator.dataset, evaluator.outcome()
    batch = {
        "user": tf.constant(data.user[rows.test]),
        "product": tf.constant(data.product[rows.test]),
    }
    bare = data.unscale(evaluator.model(batch).numpy(), data.product[rows.test])
    np.testing.assert_allclose(outcome.scores, bare, rtol=1e-5)
    assert "answers" not in evaluator.slices(outcome)
    assert not np.allclose(world("mf", "rating")[0].scores(), bare)
