import numpy as np
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.models.popularity import Popularity


def fitted(task, sweeps=10):
    dataset = make_dataset()
    model = Popularity(dataset.num_users, dataset.num_products, task, sweeps)
    model.adapt({"user": dataset.user, "product": dataset.product, "y": dataset.rating})
    return dataset, model.score_products({"user": tf.range(dataset.num_users)}).numpy()


def test_bias_equals_the_sums_written_out():
    dataset, scores = fitted("rating")
    rows = list(zip(dataset.user, dataset.product, dataset.rating))
    mean = np.mean(dataset.rating)
    of_user, of_product = np.zeros(dataset.num_users), np.zeros(dataset.num_products)
    for _ in range(10):
        for p in range(dataset.num_products):
            errors = [y - mean - of_user[u] for u, q, y in rows if q == p]
            of_product[p] = sum(errors) / (10 + len(errors))
        for u in range(dataset.num_users):
            errors = [y - mean - of_product[p] for v, p, y in rows if v == u]
            of_user[u] = sum(errors) / (15 + len(errors))
    np.testing.assert_allclose(scores, mean + of_user[:, None] + of_product, rtol=1e-5)


def test_without_sweeps_it_is_the_global_mean():
    dataset, scores = fitted("rating", sweeps=0)
    np.testing.assert_allclose(scores, np.full_like(scores, dataset.rating.mean()), rtol=1e-6)


def test_ranking_counts_rows():
    dataset, scores = fitted("ranking")
    np.testing.assert_array_equal(
        scores,
        np.tile(
            np.bincount(dataset.product, minlength=dataset.num_products), (dataset.num_users, 1)
        ),
    )
