import numpy as np
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.models.popularity import GlobalMean, Popularity


def fitted(task, part=Popularity):
    dataset = make_dataset()
    model = part.from_data(dataset.interactions, task)
    model.fit_closed_form(dataset.interactions)
    scores = model.score_all({"user": tf.range(dataset.catalog.num_users)}).numpy()
    return dataset.interactions, scores


def test_bias_equals_the_sums_written_out():
    data, scores = fitted("rating")
    rows = list(zip(data.user, data.product, data.rating))
    mean = np.mean(data.rating)
    of_user, of_product = np.zeros(data.num_users), np.zeros(data.num_products)
    for _ in range(10):
        for p in range(data.num_products):
            errors = [y - mean - of_user[u] for u, q, y in rows if q == p]
            of_product[p] = sum(errors) / (10 + len(errors))
        for u in range(data.num_users):
            errors = [y - mean - of_product[p] for v, p, y in rows if v == u]
            of_user[u] = sum(errors) / (15 + len(errors))
    np.testing.assert_allclose(scores, mean + of_user[:, None] + of_product, rtol=1e-5)


def test_the_global_mean():
    data, scores = fitted("rating", GlobalMean)
    np.testing.assert_allclose(scores, np.full_like(scores, data.rating.mean()), rtol=1e-6)


def test_ranking_counts_rows():
    data, scores = fitted("ranking")
    count = np.bincount(data.product, minlength=data.num_products)
    np.testing.assert_array_equal(scores, np.tile(count, (data.num_users, 1)))
