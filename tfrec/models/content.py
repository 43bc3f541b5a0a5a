"""Content weighting: a user is the mean of the features of the products that they rated, weighted
by their ratings.

    W = R X, each row divided by the sum of |R| X;   Y^ = W X^T

R [U, P] holds the training targets (0 for missing), X [P, F] the product features. Where no rating
is negative, each row is divided by its own sum, and Y^ is an affinity in 0..1, no rating: it ranks.
A negative rating counts against the features of its product. A user without training rows gets the
mean weights of the others. Source: the reference system (docs/reference.md).
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data import targets
from tfrec.data.interactions import Interactions
from tfrec.layers import Products, dot
from tfrec.models.base import Batch, Recommender
from tfrec.models.output import scaled
from tfrec.settings import setting

RATINGS_AT_ONCE = 16_000_000  # 64 MB of f32


class Content(Recommender):
    """Affinities; the ranking task only."""

    tasks = ("ranking",)
    closed_form = True
    takes_weights = ()
    uses_product_features = True

    @dataclass(frozen=True)
    class Settings:
        target_scaling: str = setting(
            "none", "scale of R: the ratings as they are, or min-max to 0.5..1", targets.SCALINGS
        )

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="content", dtype="float32")
        features, constant = train.catalog.features, tf.keras.initializers.Constant
        self.features = self.add_weight(
            shape=features.shape, initializer=constant(features), trainable=False, name="features"
        )
        self.weights_of_user = self.add_weight(
            shape=(train.num_users, features.shape[1]),
            initializer="zeros",
            trainable=False,
            name="weights",
        )
        self.scaling = targets.fit(settings.target_scaling, train.stats)
        self.range = targets.target_range(self.scaling, train.stats)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        features = (
            self.features.value if products is None else tf.gather(self.features.value, products)
        )
        return dot(
            tf.gather(self.weights_of_user.value, batch["user"]), tf.convert_to_tensor(features)
        )

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        scale, offset = (
            tf.gather(values, products) for values in (self.scaling.scale, self.scaling.offset)
        )
        y = scaled(ratings, scale, offset, self.range)
        features = tf.convert_to_tensor(self.features.value)
        of_products = tf.gather(features, products)
        weights = tf.einsum("bl,blf->bf", weight * y, of_products)
        sums = tf.reduce_sum(
            tf.einsum("bl,blf->bf", weight * tf.abs(y), of_products), axis=1, keepdims=True
        )
        mean = tf.reduce_mean(self.weights_of_user.value, axis=0)
        return dot(tf.where(sums != 0, tf.math.divide_no_nan(weights, sums), mean), features)

    def product_embeddings(self) -> tf.Tensor | None:
        return tf.convert_to_tensor(self.features.value)

    def fit_closed_form(self, train: Interactions) -> None:
        columns = train.columns()
        y = self.scaling.to_targets(columns["rating"], columns["product"])
        of_features = tf.reduce_sum(self.features.value, axis=1)
        order = np.argsort(columns["user"], kind="stable")
        user, product, y = (column[order] for column in (columns["user"], columns["product"], y))
        num_users, num_products = self.weights_of_user.shape[0], self.features.shape[0]
        blocks, sums_of, users_at_once = [], [], max(RATINGS_AT_ONCE // num_products, 1)
        for first in range(0, num_users, users_at_once):
            size = min(users_at_once, num_users - first)
            rows = slice(*np.searchsorted(user, [first, first + size]))
            ratings = tf.scatter_nd(
                np.stack([user[rows] - first, product[rows]], axis=1), y[rows], [size, num_products]
            )
            blocks.append(tf.matmul(ratings, self.features.value))
            sums_of.append(tf.linalg.matvec(tf.abs(ratings), of_features))
        weights, sums = tf.concat(blocks, axis=0), tf.concat(sums_of, axis=0)[:, None]
        normal = tf.math.divide_no_nan(weights, sums)
        known = tf.cast(sums != 0, tf.float32)
        mean = tf.reduce_sum(normal, axis=0) / tf.maximum(tf.reduce_sum(known), 1)
        self.weights_of_user.assign(tf.where(sums != 0, normal, mean))
