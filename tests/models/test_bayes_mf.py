"""The variational updates, against the same written out a user and a product at a time."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, make_split, rows_of
from tfrec.models import bayes_mf
from tfrec.models.bayes_mf import BayesianMF, Side
from tfrec.models.popularity import Popularity
from tfrec.serving.export import ServingModule

SIZE = 4


def sides(seed=0, user_features=2):
    """(rows, users, products), with posteriors at random."""
    rows = make_dataset(rows=60, seed=seed, user_features=user_features).interactions
    target = rows.rating.astype(np.float64) - rows.rating.mean()
    user, product = rows.user.astype(np.int64), rows.product.astype(np.int64)
    users = Side(rows.catalog.user_features, user, product, target, SIZE)
    products = Side(rows.catalog.features, product, user, target, SIZE)
    random = np.random.RandomState(seed)
    for side in (users, products):
        count = side.mean.shape[0]
        root = random.normal(size=(count, SIZE, SIZE))
        side.mean = tf.constant(random.normal(size=(count, SIZE)))
        side.spread = tf.constant(root @ root.transpose(0, 2, 1) / 10)
        side.weights = tf.constant(random.normal(size=side.weights.shape))
        root = random.normal(size=(SIZE, SIZE))
        side.prior = tf.constant(root @ root.T + np.eye(SIZE))
    return rows, users, products


def moments(mean, spread):
    """E[h h^T] and E[b h] of (b, z), by the covariance of (b, 1, z)."""
    whole = np.concatenate([mean[:1], [1.0], mean[1:]])
    cov = np.insert(np.insert(spread, 1, 0, axis=0), 1, 0, axis=1)
    second = np.outer(whole, whole) + cov
    return second[1:, 1:], second[0, 1:]


def squared_error(y, x, of_x, z, of_z):
    """E[(y - b_u - b_p - <x, z>)^2] from the moments of two independent vectors."""
    first, second = (np.concatenate([rows[:1], [1.0], rows[1:]]) for rows in (x, z))
    # y - <(b_u, 1, x), (1, b_p, z)>
    second = np.concatenate([[1.0], z])
    of_first = np.insert(np.insert(of_x, 1, 0, axis=0), 1, 0, axis=1)
    of_second = np.pad(of_z, [[1, 0], [1, 0]])
    both = (np.outer(first, first) + of_first) * (np.outer(second, second) + of_second)
    return y**2 - 2 * y * first @ second + both.sum()


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_a_pass_over_a_side_equals_its_equations(noise):
    rows, users, products = sides()
    before = users.prior.numpy()
    g = np.insert(rows.catalog.user_features.dense(), 0, 1, axis=1)
    prior_mean = g @ users.weights.numpy()
    error = users.solve(products, noise)
    y, total = rows.rating - rows.rating.mean(), 0.0
    for user in range(rows.num_users):
        precision = np.linalg.inv(before)
        right = precision @ prior_mean[user]
        for at in np.flatnonzero(rows.user == user):
            p = rows.product[at]
            of_h, of_bias = moments(products.mean[p].numpy(), products.spread[p].numpy())
            h = np.concatenate([[1.0], products.mean[p].numpy()[1:]])
            precision, right = precision + of_h / noise, right + (y[at] * h - of_bias) / noise
        np.testing.assert_allclose(users.spread[user], np.linalg.inv(precision), rtol=1e-8)
        np.testing.assert_allclose(users.mean[user], np.linalg.solve(precision, right), rtol=1e-8)
    for at, (user, p) in enumerate(zip(rows.user, rows.product)):
        x, of_x = users.mean[user].numpy(), users.spread[user].numpy()
        total += squared_error(y[at], x, of_x, products.mean[p].numpy(), products.spread[p].numpy())
    assert error == pytest.approx(total, rel=1e-6)


def test_the_prior_is_that_of_greatest_likelihood(monkeypatch):
    monkeypatch.setattr(bayes_mf, "STEPS", 50)
    rows, users, products = sides()
    users.solve(products, 0.5)
    known = np.isin(np.arange(rows.num_users), rows.user)
    g = np.insert(rows.catalog.user_features.dense(), 0, 1, axis=1)[known]
    penalty = np.diag([0.0, 1.0, 1.0])
    mean, spread = users.mean.numpy()[known], users.spread.numpy()[known]
    weights = np.linalg.solve(g.T @ g + penalty, g.T @ mean)
    np.testing.assert_allclose(users.weights, weights, rtol=1e-6, atol=1e-9)
    apart = mean - g @ weights
    total = apart.T @ apart + spread.sum(axis=0) + weights[1:].T @ weights[1:]
    np.testing.assert_allclose(users.prior, total / (known.sum() + 2), rtol=1e-6, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.integers(0, 2**31 - 1))
def test_conjugate_gradients_solve(size, columns, seed):
    random = np.random.RandomState(seed)
    root = random.normal(size=(size, size))
    matrix, wanted = root @ root.T + np.eye(size), random.normal(size=(size, columns))
    found = bayes_mf.conjugate_gradients(
        lambda x: tf.matmul(matrix, x), wanted, tf.zeros([size, columns], tf.float64), 3 * size
    )
    np.testing.assert_allclose(found, np.linalg.solve(matrix, wanted), rtol=1e-5, atol=1e-7)


def drawn(seed=0, shape=(300, 150), rows=9000, dim=2):
    """Ratings drawn from the model itself, and where they were cut."""
    random = np.random.RandomState(seed)
    users, products = (random.normal(0, 0.6, (count, dim + 1)) for count in shape)
    pairs = random.permutation(shape[0] * shape[1])[:rows]
    user, product = np.divmod(pairs, shape[1])
    y = 3 + users[user, 0] + products[product, 0]
    y += (users[user, 1:] * products[product, 1:]).sum(axis=1) + random.normal(0, 0.5, rows)
    return user, product, y, shape


def test_it_knows_how_far_off_it_is():
    user, product, y, shape = drawn()
    train = rows_of(user[:6000], product[:6000], y[:6000], shape)
    model = BayesianMF.from_data(train, embedding_dim=4)
    model.fit_closed_form(train)
    of_test = (tf.constant(ids[6000:], tf.int32) for ids in (user, product))
    user, product = of_test
    errors = y[6000:] - model.of_known(user, product).numpy()
    assert np.sqrt(np.mean(errors**2)) < 0.6  # the noise has 0.5, the ratings 1.2
    assert np.mean((errors / model.deviation(user, product).numpy()) ** 2) == pytest.approx(
        1, abs=0.15
    )
    of_new = model.deviation(tf.fill([150], -1), tf.range(150)).numpy()
    assert of_new.mean() > 1.5 * model.deviation(user, product).numpy().mean()


@pytest.mark.parametrize("part", [BayesianMF, Popularity])
def test_new_users_have_the_mean_over_rows_of_the_others(part):
    rows = make_dataset(rows=60).interactions
    train = rows.take(np.flatnonzero((rows.user != 3) & (rows.product != 4)))
    model = part.from_data(train, "rating")
    model.fit_closed_form(train)
    table, products = model.users.table.numpy(), model.products.table.numpy()
    expected = table[train.user].mean(axis=0)
    if part is Popularity:  # whose users have no features
        np.testing.assert_allclose(table[3], expected, rtol=1e-5)
        known = np.delete(products, 4, axis=0)[:, 0]
        np.testing.assert_allclose(products[4, 0], known.mean(), rtol=1e-4, atol=1e-6)
    factors = expected[1:] @ products[:, 1:].T if products.shape[1] > 1 else 0.0
    scores = model.mean.numpy() + expected[0] + products[:, 0] + factors
    every = tf.range(9)
    np.testing.assert_allclose(model.of_known(tf.fill([9], -1), every), scores, rtol=1e-4)
    np.testing.assert_allclose(
        model.of_known(tf.fill([9], 3), every), scores, rtol=1e-4
    )  # has no features either


def test_new_products_weigh_by_rows_as_the_validation_rows_say():
    rows = make_dataset(rows=60).interactions
    train = rows.take(np.flatnonzero(rows.product != 4))
    train.cold_shares = {"user": 0.0, "product": 1.0}
    for part in (BayesianMF, Popularity):
        model = part.from_data(train, "rating")
        model.fit_closed_form(train)
        expected = model.products.table.numpy()[train.product].mean(axis=0)
        new = model.new.numpy()[1:] if part is Popularity else model.new_product.numpy()
        np.testing.assert_allclose(new, expected, rtol=1e-4, atol=1e-6)


def test_fold_in_is_the_posterior_of_a_new_user():
    rows = make_dataset(rows=60).interactions
    model = BayesianMF.from_data(rows, embedding_dim=3)
    model.fit_closed_form(rows)
    products, ratings = np.array([1, 4, 2]), np.array([5.0, 1.0, 3.0])
    table, spread = model.products.table.numpy(), model.product_spread.numpy()
    precision = np.linalg.inv(model.user_spread.numpy()[-1].astype(np.float64))
    right = precision @ model.new_user.numpy()
    for p, y in zip(products[:2], ratings):  # the third is padding
        of_h, of_bias = moments(table[p], spread[p])
        h = np.concatenate([[1.0], table[p, 1:]])
        precision = precision + of_h / model.noise.numpy()
        right = right + ((y - model.mean.numpy()) * h - of_bias) / model.noise.numpy()
    x = np.linalg.solve(precision, right)
    expected = model.mean.numpy() + x[0] + table[:, 0] + table[:, 1:] @ x[1:]
    weight = tf.constant([[1.0, 1.0, 0.0]])
    given_rows = tf.constant(products[None], tf.int32), tf.constant(ratings[None], tf.float32)
    np.testing.assert_allclose(model.fold_in_scores(*given_rows, weight)[0], expected, rtol=1e-3)


def test_the_export_says_how_far_ratings_may_be_off():
    dataset = make_dataset(rows=60)
    split = make_split(dataset, np.arange(50), test=np.arange(50, 60))
    model = BayesianMF.from_data(split.train)
    model.fit_closed_form(split.train)
    none = {"context": tf.zeros([0, 2]), "timestamp": tf.zeros([0], tf.int64)}
    user, product = (tf.constant(ids, tf.int64) for ids in ([100, 100, -7], [1000, -7, 1000]))
    answer = ServingModule(model, split).score(user=user, product=product, **none)
    of = tf.constant([0, 0, -1]), tf.constant([0, -1, 0])
    np.testing.assert_allclose(answer["deviation"], model.deviation(*of), rtol=1e-5)
    expected = np.clip(model.of_known(*of), *split.train.stats.range)
    np.testing.assert_allclose(answer["rating"], expected, rtol=1e-5)
    assert [bytes(source) for source in answer["source"].numpy()] == [b"model"] * 3


def test_the_unit_of_ratings_does_not_matter():
    rows = make_dataset(rows=60, user_features=2).interactions
    ids = np.arange(12) % 12, np.arange(12) % 9
    found = []
    for unit in (1.0, 20.0):
        train = rows_of(
            rows.user,
            rows.product,
            unit * rows.rating,
            (12, 9),
            features=rows.catalog.features,
            user_features=rows.catalog.user_features,
        )
        model = BayesianMF.from_data(train, embedding_dim=3)
        model.fit_closed_form(train)
        user, product = (tf.constant(each, tf.int32) for each in ids)
        found += [model.of_known(user, product) / unit, model.deviation(user, product) / unit]
    np.testing.assert_allclose(found[0], found[2], rtol=1e-4)
    np.testing.assert_allclose(found[1], found[3], rtol=1e-4)
