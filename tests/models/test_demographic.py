import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, rows_of, set_features
from tfrec.errors import UsageError
from tfrec.models.demographic import Demographic
from tfrec.models.popularity import Popularity

TASKS = pytest.mark.parametrize("task", ["rating", "ranking"])


def fitted(task, damping=3.0, cold=(3, 11)):
    """The tiny dataset with three attributes; the users of `cold` have no training rows."""
    dataset = make_dataset(user_features=3)
    set_features(dataset, 5, 0)  # says nothing about himself
    rows = dataset.interactions.take(~np.isin(dataset.interactions.user, cold))
    model = Demographic.from_data(rows, task)
    model.damping = damping
    model.fit_closed_form(model.data)
    return model, dataset, rows


@TASKS
def test_equals_its_equations(task):
    model, dataset, data = fitted(task)
    catalog, attributes = dataset.catalog, dataset.catalog.user_features.dense()
    rows = list(zip(data.user, data.product, data.rating))
    bias = Popularity.from_data(data)
    bias.fit_closed_form(data)
    of_all = float(bias.mean) + bias.products.table.numpy()[:, 0]
    trained = set(data.user)
    expected = np.zeros((catalog.num_users, catalog.num_products))
    for u in range(catalog.num_users):
        for p in range(catalog.num_products):
            parts = []
            for g in np.flatnonzero(attributes[u]):
                group = {v for v in trained if attributes[v, g]}
                inside = [y - of_all[p] for v, q, y in rows if q == p and v in group]
                if task == "rating":
                    parts.append(sum(inside) / (len(inside) + 3.0))
                else:
                    whole = sum(q == p for _, q, _ in rows) / len(trained)
                    parts.append((len(inside) + 3.0 * whole) / (len(group) + 3.0))
            expected[u, p] = (of_all[p] if task == "rating" else 0) + (
                np.mean(parts) if parts else 0
            )
    batch = {"user_features": tf.constant(attributes)}  # and no user id
    np.testing.assert_allclose(model.score_all(batch), expected, rtol=1e-4, atol=1e-5)
    several = tf.tile(tf.constant([[4, 1]]), [catalog.num_users, 1])
    np.testing.assert_allclose(
        model.score_candidates(batch, several), expected[:, [4, 1]], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        model.score_candidates(batch, several[0]), expected[:, [4, 1]], rtol=1e-4, atol=1e-5
    )


@TASKS
def test_cold_users_are_scored_as_their_like(task):
    model, dataset, _ = fitted(task)
    set_features(dataset, 3, dataset.catalog.user_features.dense()[0])
    scores = model.score_all(
        {"user": tf.range(12), "user_features": tf.constant(dataset.catalog.user_features.dense())}
    ).numpy()
    np.testing.assert_array_equal(scores[3], scores[0])
    assert scores[3].std() > 0


def test_numbers_make_no_groups():
    features = np.array([[1, 0, 31.5], [0, 1, 62.0]], np.float32)
    scores = []
    for columns in (features, features[:, :2]):
        rows = rows_of([0, 1], [0, 1], [1, 5], (2, 2), user_features=columns)
        model = Demographic.from_data(rows)
        model.fit_closed_form(rows)
        scores.append(model.score_all({"user_features": tf.constant(columns)}))
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("task", ["rating", "ranking"])
def test_it_is_refused_where_nothing_is_known_about_users(task):
    dataset = make_dataset()
    with pytest.raises(UsageError, match=r"^model=demographic: the data have no attributes"):
        Demographic.from_data(dataset.interactions, task)
