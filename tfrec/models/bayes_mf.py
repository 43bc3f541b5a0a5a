"""Bayesian matrix factorisation by variational inference: nothing to tune, and every prediction
with its standard deviation.

    y(u, p) ~ N(mu + b_u + b_p + <x_u, z_p>, s)
    (b_u, x_u) ~ N(A^T g_u, S_u)
    (b_p, z_p) ~ N(B^T f_p, S_p)

g_u [G+1] and f_p [F+1] are the features of the user and of the product with a constant 1 before
them, mu is the mean of the ratings. The posterior is taken for a product of one normal distribution
for each user and each product (mean field). Given those of the products, with h_p = (1, z_p), that
of a user is

    C_u = (S_u^-1 + sum_(p in R(u)) E[h_p h_p^T] / s)^-1
    m_u = C_u (S_u^-1 A^T g_u + sum_(p in R(u)) E[(y - mu - b_p) h_p] / s)

with R(u) the user's training rows, and a product's likewise. An iteration makes the products'
posteriors, then the users', and after each the prior of that side, after the users' s too, as these
make them most likely (empirical Bayes; a row of A or B that is of a feature is drawn from N(0, S)
itself).

A user without training rows has A^T g_u and the mean of m_v - A^T g_v over the training rows: the
ratings that will be asked for are of people who rate much, as those of training are. A product
without them has B^T f_p and the mean over the products, which weigh by their rows in so far as
validation rows are of new products (Split.cold_weights).

Sources: Lim and Teh, "Variational Bayesian Approach to Movie Rating Prediction", 2007; Agarwal and
Chen, "Regression-based Latent Factor Models", 2009 (features in the prior's mean).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions, mean_weights
from tfrec.data.sparse import SparseFeatures
from tfrec.errors import UsageError
from tfrec.layers import Embedding, Parts, Products, dot
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting

SMALLEST = 1e-6  # noise, where all ratings are alike
STEPS = 10  # of conjugate gradients in an iteration, which goes on where the last one ended


class BayesianMF(Recommender):
    """Scores in rating units; the rating task only.

    user_spread f32 [U + 1, D, D] and product_spread [P + 1, D, D]: C, with D = d + 1. The last row
    of each is of those who are not in the data, and so are new_user and new_product f32 [D].
    noise f32 []: s. The factors start from a fixed draw, so that fitting again gives the same
    model.
    """

    tasks = ("rating",)
    closed_form = True
    batch_columns = ()
    takes_weights = ()
    answers_for_new = True

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = setting(16, "width of the user and product embeddings", low=1)
        iterations: int = setting(
            30, "passes, each of which solves for all products, then for all users", low=1
        )

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="bayes_mf", dtype="float32")
        self.iterations, size = settings.iterations, settings.embedding_dim + 1
        self.uses_product_features = train.catalog.features.shape[1] > 0
        self.uses_user_features = train.catalog.user_features.shape[1] > 0
        widths = {"bias": 1, "factors": settings.embedding_dim}
        self.users = Embedding(train.num_users, widths, "user")
        self.products = Embedding(train.num_products, widths, "product")
        self.mean = self._zeros("mean")
        self.noise = self._zeros("noise")
        self.new_user = self._zeros("new_user", size)
        self.new_product = self._zeros("new_product", size)
        self.user_spread = self._zeros("user_spread", train.num_users + 1, size, size)
        self.product_spread = self._zeros("product_spread", train.num_products + 1, size, size)
        self.trainable = False

    def _zeros(self, name: str, *shape: int) -> tf.keras.Variable:
        return self.add_weight(shape=shape, initializer="zeros", name=name)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        user, product = self.users(batch["user"]), self.products(products)
        of_user = self.mean + tf.expand_dims(user["bias"], 1)
        return of_user + product["bias"] + dot(user["factors"], product["factors"])

    def of_known(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor:
        x, z = self._rows(user, product)
        return self.mean + x[:, 0] + z[:, 0] + tf.reduce_sum(x[:, 1:] * z[:, 1:], axis=1)

    def deviation(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor | None:
        x, z = self._rows(user, product)
        g, h = (tf.concat([tf.ones_like(rows[:, :1]), rows[:, 1:]], axis=1) for rows in (x, z))
        of_user = tf.gather(self.user_spread.value, _or_last(user, self.user_spread))
        of_product = tf.gather(self.product_spread.value, _or_last(product, self.product_spread))
        both = tf.einsum("bij,bij->b", of_user[:, 1:, 1:], of_product[:, 1:, 1:])
        both += tf.einsum("bi,bij,bj->b", h, of_user, h)
        return tf.sqrt(self.noise + both + tf.einsum("bi,bij,bj->b", g, of_product, g))

    def _rows(self, user: tf.Tensor, product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns (b, x) of users and (b, z) of products, -1 for a new one; f32 [B, D] each."""
        sides = ((self.users, self.new_user, user), (self.products, self.new_product, product))
        x, z = (
            tf.where(at[:, None] >= 0, _side_by_side(table(tf.maximum(at, 0))), new)
            for table, new, at in sides
        )
        return x, z

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        z = _side_by_side(self.products(products))
        spread = tf.gather(self.product_spread.value, products)
        moments, shift = _moments(z, spread)
        count = tf.shape(z)[-1]
        inverse = tf.linalg.inv(self.user_spread.value[-1])
        precision = inverse + tf.einsum("bl,blij->bij", weight, moments) / self.noise
        rest = (ratings - self.mean)[..., None] * _with_one(z) - shift
        right = tf.linalg.matvec(inverse, self.new_user.value)
        right += tf.einsum("bl,bli->bi", weight, rest) / self.noise
        found = tf.linalg.solve(precision, tf.reshape(right, [-1, count, 1]))[..., 0]
        every = self.products(None)
        of_user = self.mean + found[:, :1] + every["bias"]
        return of_user + dot(found[:, 1:], every["factors"])

    def fit_closed_form(self, train: Interactions) -> None:
        if not len(train):
            raise UsageError("model=bayes_mf: there are no training rows.")
        columns = train.columns()
        rating = columns["rating"].astype(np.float64)
        mean, size = rating.mean(), self.new_user.shape[0]
        self.mean.assign(mean)
        pairs = {side: columns[side].astype(np.int64) for side in ("user", "product")}
        catalog, target = train.catalog, rating - mean
        users = Side(catalog.user_features, pairs["user"], pairs["product"], target, size)
        products = Side(catalog.features, pairs["product"], pairs["user"], target, size)
        # factors that start small may stay at 0, where the bound has an optimum too
        noise = max(target.var(), SMALLEST)
        shape = [train.num_users, size - 1]
        draw = tf.random.stateless_normal(shape, [0, 0], 0, noise**0.25, tf.float64)
        users.mean = tf.pad(draw, [[0, 0], [1, 0]])
        for _ in range(self.iterations):
            products.solve(users, noise)
            noise = max(users.solve(products, noise) / len(target), SMALLEST)
        self.noise.assign(noise)
        share = train.cold_share("product")
        for side, shared, table, new in (
            (users, 1.0, self.users, self.new_user),
            (products, share, self.products, self.new_product),
        ):
            weights = mean_weights(side.rows.numpy(), shared)
            table.table.assign(tf.cast(side.with_new(weights), tf.float32))
            new.assign(tf.cast(tf.linalg.matvec(side.mean, weights, transpose_a=True), tf.float32))
        self.user_spread.assign(users.spreads())
        self.product_spread.assign(products.spreads())


class Side:
    """The posterior of the users, or of the products, and the prior of it. In float64.

    mean [N, D]: m. spread [N, D, D]: C. weights [F + 1, D]: A, or B. prior [D, D]: S.

    Args:
        features: f, or g.
        ids: Whose each training row is, int64 [n].
        others: Of the other side, int64 [n].
        target: y - mu, f64 [n].
        size: D.
    """

    def __init__(
        self,
        features: SparseFeatures,
        ids: np.ndarray,
        others: np.ndarray,
        target: np.ndarray,
        size: int,
    ) -> None:
        count = features.shape[0]
        by_id = np.argsort(ids, kind="stable")
        places = np.stack([ids, others], axis=1)[by_id]
        shape = [count, int(others.max()) + 1]
        self.target = tf.SparseTensor(places, target[by_id], shape)
        self.taken = tf.SparseTensor(places, np.ones(len(target)), shape)
        self.squares = float(np.sum(target**2))
        self.rows = tf.constant(np.bincount(ids, minlength=count), tf.float64)
        self.known = tf.cast(self.rows > 0, tf.float64)
        self.design = _with_constant(features)
        # a constant is free, a feature's row is drawn from the prior
        self.drawn = tf.constant([[0.0]] + [[1.0]] * features.shape[1], tf.float64)
        self.weights = tf.zeros([features.shape[1] + 1, size], tf.float64)
        # of a bias the variance of the targets, of factors its root: their products are as large
        deviation = max(target.std(), SMALLEST**0.5)
        self.prior = tf.linalg.diag(
            tf.constant([deviation**2] + [deviation] * (size - 1), tf.float64)
        )
        self.mean = tf.zeros([count, size], tf.float64)
        self.spread = tf.zeros([count, size, size], tf.float64)

    def solve(self, other: "Side", noise: float) -> float:
        """Makes the posterior from the other side's, then the prior.

        Returns:
            The expected sum of the squared errors.
        """
        size = self.mean.shape[1]
        bias, h = other.mean[:, :1], _with_one(other.mean)
        moments, shift = _moments(other.mean, other.spread)
        squares = bias**2 + other.spread[:, 0, :1]
        known = self.taken.shape[1]  # others after these have no rows
        summed = tf.concat([tf.reshape(moments, [-1, size * size]), shift, squares], axis=1)
        summed = tf.sparse.sparse_dense_matmul(self.taken, summed[:known])
        moments, shift, squares = tf.split(summed, [size * size, size, 1], axis=1)
        moments = tf.reshape(moments, [-1, size, size])
        right = tf.sparse.sparse_dense_matmul(self.target, tf.concat([h, bias], axis=1)[:known])
        right, of_bias = right[:, :size] - shift, right[:, size:]
        inverse = tf.linalg.inv(self.prior)
        self.spread = tf.linalg.inv(inverse + moments / noise)
        by_prior = tf.matmul(self.prior_mean(), inverse)
        self.mean = tf.linalg.matvec(self.spread, by_prior + right / noise)
        self._set_prior()
        of_rows = self.squares - 2 * tf.reduce_sum(of_bias) + tf.reduce_sum(squares)
        both = self.spread + self.mean[:, :, None] * self.mean[:, None]
        error = tf.reduce_sum(both * moments) - 2 * tf.reduce_sum(self.mean * right)
        return float(of_rows + error)

    def prior_mean(self) -> tf.Tensor:
        """Returns what the features say, [N, D]."""
        return tf.sparse.sparse_dense_matmul(self.design, self.weights)

    def _set_prior(self) -> None:
        """Sets weights and prior as the posterior makes them most likely."""
        known = self.known[:, None]

        def normal(weights: tf.Tensor) -> tf.Tensor:
            of_rows = known * tf.sparse.sparse_dense_matmul(self.design, weights)
            back = tf.sparse.sparse_dense_matmul(self.design, of_rows, adjoint_a=True)
            return back + self.drawn * weights

        wanted = tf.sparse.sparse_dense_matmul(self.design, known * self.mean, adjoint_a=True)
        self.weights = conjugate_gradients(normal, wanted, self.weights, STEPS)
        apart = known * (self.mean - self.prior_mean())
        of_features = self.drawn * self.weights
        total = tf.reduce_sum(known[:, :, None] * self.spread, axis=0)
        total += tf.matmul(apart, apart, transpose_a=True)
        total += tf.matmul(of_features, of_features, transpose_a=True)
        self.prior = total / (tf.reduce_sum(known) + tf.reduce_sum(self.drawn))

    def with_new(self, weights: np.ndarray) -> tf.Tensor:
        """Returns the means, where there are no training rows with what the others have beside
        what their features say, by weights f64 [N]; [N, D].
        """
        prior = self.prior_mean()
        apart = tf.linalg.matvec(self.mean - prior, weights, transpose_a=True)
        return tf.where(self.known[:, None] > 0, self.mean, prior + apart)

    def spreads(self) -> tf.Tensor:
        """Returns the spreads, and after them that of a new one, f32 [N + 1, D, D]."""
        spread = tf.where(self.known[:, None, None] > 0, self.spread, self.prior)
        return tf.cast(tf.concat([spread, self.prior[None]], axis=0), tf.float32)


def conjugate_gradients(
    normal: Callable[[tf.Tensor], tf.Tensor], wanted: tf.Tensor, start: tf.Tensor, steps: int
) -> tf.Tensor:
    """Returns x [F, D] with normal(x) = wanted, for each column, as it is after so many steps.

    Args:
        normal: Multiplies x with a matrix that is positive definite.
        wanted: [F, D].
        start: The first x.
        steps: How many.
    """
    x, rest = start, wanted - normal(start)
    way, squares = rest, tf.reduce_sum(rest**2, axis=0)
    for _ in range(steps):
        along = normal(way)
        step = tf.math.divide_no_nan(squares, tf.reduce_sum(way * along, axis=0))
        x, rest = x + step * way, rest - step * along
        before, squares = squares, tf.reduce_sum(rest**2, axis=0)
        way = rest + tf.math.divide_no_nan(squares, before) * way
    return x


def _with_constant(features: SparseFeatures) -> tf.SparseTensor:
    """Returns a constant 1 and the features, f64 [N, F + 1]."""
    count, width = features.shape
    rows = np.concatenate([np.arange(count), features.rows])
    columns = np.concatenate([np.zeros(count, np.int64), features.columns + 1])
    values = np.concatenate([np.ones(count), features.values.astype(np.float64)])
    order = np.lexsort((columns, rows))
    places = np.stack([rows, columns], axis=1)[order].astype(np.int64)
    return tf.SparseTensor(places, values[order], [count, width + 1])


def _side_by_side(parts: Parts) -> tf.Tensor:
    """Returns rows (b, z) of their parts, [..., D]."""
    return tf.concat([tf.expand_dims(parts["bias"], -1), parts["factors"]], axis=-1)


def _with_one(rows: tf.Tensor) -> tf.Tensor:
    """Returns h = (1, z) of rows (b, z), [..., D]."""
    return tf.concat([tf.ones_like(rows[..., :1]), rows[..., 1:]], axis=-1)


def _moments(mean: tf.Tensor, spread: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns E[h h^T] [..., D, D] and E[b h] [..., D] of (b, z) with a mean and a spread."""
    h = _with_one(mean)
    no_bias = tf.pad(spread[..., 1:, 1:], [[0, 0]] * (len(mean.shape) - 1) + [[1, 0]] * 2)
    with_bias = tf.concat([tf.zeros_like(mean[..., :1]), spread[..., 0, 1:]], axis=-1)
    return h[..., :, None] * h[..., None, :] + no_bias, mean[..., :1] * h + with_bias


def _or_last(ids: tf.Tensor, rows: tf.keras.Variable) -> tf.Tensor:
    """Returns the ids int32 [B], the last row for -1."""
    return tf.where(ids >= 0, ids, rows.shape[0] - 1)
