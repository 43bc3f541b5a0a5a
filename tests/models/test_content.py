import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, rows_of
from tfrec import layers
from tfrec.errors import UsageError
from tfrec.models.content import Content


@pytest.mark.parametrize("narrow", (64, 1))
def test_equals_its_formula_whether_features_are_dense_or_sparse(narrow, monkeypatch):
    monkeypatch.setattr(layers.features, "NARROW", narrow)
    dataset = make_dataset()
    catalog = dataset.catalog
    rows = dataset.interactions.take(~np.isin(dataset.interactions.user, (3, 11)))
    model = Content.from_data(rows)
    model.fit_closed_form(rows)
    ratings = np.zeros((catalog.num_users, catalog.num_products), np.float32)
    ratings[rows.user, rows.product] = rows.rating
    weights = ratings @ catalog.features.dense()
    known = weights.sum(axis=1) > 0
    weights[known] /= weights[known].sum(axis=1, keepdims=True)
    weights[~known] = weights[known].mean(
        axis=0
    )  # users without training rows: the mean of the others, never NaN
    assert not known[3] and not known[11]
    scores = model.score_all({"user": tf.range(catalog.num_users)}).numpy()
    np.testing.assert_allclose(scores, weights @ catalog.features.dense().T, rtol=1e-5)
    assert np.isfinite(scores).all()


def test_nobody_has_weights_where_no_product_has_features():
    rows = rows_of([0, 1], [0, 2], [1, 1], (2, 3), features=np.zeros((3, 2), np.float32))
    model = Content.from_data(rows)
    model.fit_closed_form(rows)
    np.testing.assert_array_equal(model.score_all({"user": tf.range(2)}), np.zeros((2, 3)))


def test_it_is_refused_where_products_have_no_features():
    with pytest.raises(UsageError, match=r"^model=content: the data have no features"):
        Content.from_data(rows_of([0, 1], [0, 2], [1, 1], (2, 3)))


def test_dislikes_count_against_their_features():
    """On a scale of -10..10 with more dislike than like.

    Each user gets the genre that they like, in training and by fold-in.
    """
    genre = np.arange(12) // 4
    features = np.eye(3, dtype=np.float32)[genre]
    user = np.repeat(np.arange(3), 8)
    product = np.concatenate(
        [np.flatnonzero((genre == u) | (genre == (u + 1) % 3)) for u in range(3)]
    )
    y = np.where(genre[product] == user, 4.0, -7.0).astype(np.float32)
    rows = rows_of(user, product, y, (4, 12), features=features)
    model = Content.from_data(rows)
    model.fit_closed_form(rows)
    trained = model.score_all({"user": tf.range(3)})
    new = model.fold_in_scores(tf.reshape(product, [3, 8]), tf.reshape(y, [3, 8]), tf.ones([3, 8]))
    for scores in (trained, new):
        np.testing.assert_array_equal(genre[np.argmax(scores, axis=1)], [0, 1, 2])
        np.testing.assert_array_equal(genre[np.argmin(scores, axis=1)], [1, 2, 0])
    np.testing.assert_allclose(trained, new, rtol=1e-5)
