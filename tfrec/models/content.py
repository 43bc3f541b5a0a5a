"""Content weighting: a user is the mean of the features of the products that they rated, weighted
by their ratings.

    W = R X, each row divided by the sum of |R| X;   Y^ = W X^T

R [U, P] holds the training targets (0 for missing), X [P, F] the product features; R is sparse, and
so is X where it is wide. Where no rating is negative, each row is divided by its own sum, and Y^ is
an affinity in 0..1, no rating: it ranks. A negative rating counts against the features of its
product. A user without training rows gets the mean weights of the others. Source: the reference
system (docs/reference.md).
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data import targets
from tfrec.data.interactions import Interactions
from tfrec.data.sparse import SparseFeatures
from tfrec.errors import UsageError
from tfrec.layers import FeatureTable, Products, rows_at
from tfrec.models.base import Batch, Recommender
from tfrec.models.output import scaled
from tfrec.settings import setting


class Content(Recommender):
    """Affinities; the ranking task only.

    Of few features it keeps W; of many R, whose rows make those of W when they are asked for.
    """

    tasks = ("ranking",)
    closed_form = True
    takes_weights = ()
    batch_columns = ()
    uses_product_features = True

    @dataclass(frozen=True)
    class Settings:
        target_scaling: str = setting(
            "none", "scale of R: the ratings as they are, or min-max to 0.5..1", targets.SCALINGS
        )

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="content", dtype="float32")
        catalog = train.catalog
        if not catalog.features.shape[1]:
            raise UsageError(
                "model=content: the data have no features of products, so there is nothing to "
                "weigh by."
            )
        self.features = FeatureTable(catalog.features, "product")
        self.sum_of_features = np.bincount(
            catalog.features.rows, catalog.features.values, train.num_products
        ).astype(np.float32)
        self.scaling = targets.fit(settings.target_scaling, train.stats)
        self.range = targets.target_range(self.scaling, train.stats)
        if self.features.narrow:
            self.weights_of_user = self._zeros("weights", (train.num_users, self.features.width))
            return
        self.mean = self._zeros("mean", (self.features.width,))
        self.ratings = FeatureTable(self._ratings(train), "user")
        self.floats_per_row = self.features.width + train.num_products
        self.floats_per_score = 1 + -(-self.floats_per_row // train.num_products)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        if self.features.narrow:
            weights = tf.gather(self.weights_of_user.value, batch["user"])
        else:
            weights = self._weights(self.ratings(batch["user"]).dense())
        return self.features(products).dot(weights)

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        scale, offset = (
            tf.gather(values, products) for values in (self.scaling.scale, self.scaling.offset)
        )
        y = scaled(ratings, scale, offset, self.range) * weight
        products, count = tf.cast(products, tf.int32), tf.shape(products)[0]
        user = tf.broadcast_to(tf.range(count)[:, None], tf.shape(products))
        places = tf.stack([user, products], axis=2)
        of_all = tf.scatter_nd(places, y, [count, self.features.rows])
        return self.features(None).dot(self._weights(of_all))

    def product_embeddings(self) -> tf.Tensor | None:
        return rows_at(self.features.table.value, None) if self.features.narrow else None

    def fit_closed_form(self, train: Interactions) -> None:
        ratings = self._ratings(train)
        user = ratings.rows
        size = np.abs(ratings.values) * self.sum_of_features[ratings.columns]
        size = np.bincount(user, size, ratings.shape[0])  # of each user, what W is divided by
        share = ratings.values / np.where(size, size, 1)[user] * (size != 0)[user]
        of_product = np.bincount(ratings.columns, share, ratings.shape[1]) / max(
            (size != 0).sum(), 1
        )
        mean = self.features(None).weighted_sum(tf.constant(of_product[None], tf.float32))
        if not self.features.narrow:
            self.mean.assign(mean[0])
            self.ratings.assign(ratings)
            return
        places = np.stack([user, ratings.columns], axis=1)
        matrix = tf.SparseTensor(places, share.astype(np.float32), ratings.shape)
        weights = tf.sparse.sparse_dense_matmul(matrix, self.features.table.value)
        self.weights_of_user.assign(tf.where(size[:, None] != 0, weights, mean))

    def _weights(self, ratings: tf.Tensor) -> tf.Tensor:
        """Returns rows of W from those of R, f32 [B, P] -> [B, F]."""
        weights = self.features(None).weighted_sum(ratings)
        size = tf.linalg.matvec(tf.abs(ratings), self.sum_of_features)[:, None]
        mean = (
            tf.reduce_mean(self.weights_of_user.value, axis=0)
            if self.features.narrow
            else self.mean.value
        )
        return tf.where(size != 0, tf.math.divide_no_nan(weights, size), mean)

    def _ratings(self, train: Interactions) -> SparseFeatures:
        """Returns R."""
        columns = train.columns()
        y = self.scaling.to_targets(columns["rating"], columns["product"])
        entries, names = (columns["user"], columns["product"], y), ("",) * train.num_products
        return SparseFeatures.of_entries(entries, train.num_users, names)

    def _zeros(self, name: str, shape: tuple[int, ...]) -> tf.keras.Variable:
        return self.add_weight(shape=shape, initializer="zeros", trainable=False, name=name)
