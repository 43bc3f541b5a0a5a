"""Popularity: what can be said without knowing the user's taste.

    rating:   y^(u, p) = mu + b_u + b_p
              b_p = sum_u (y - mu - b_u) / (10 + n_p),   b_u = sum_p (y - mu - b_p) / (15 + n_u),
              in turn, 10 times
    ranking:  y^(u, p) = n_p, or the weights of its rows together where rows have weights

n counts training rows. A user without any has the mean of b over the training rows, as the ratings
that will be asked for are of people who rate much; a product without any that over the products,
which weigh by their rows in so far as validation rows are of new products (Split.cold_weights).
Source: Koren, "Factor in the Neighbors", 2010, section 2.1, with Surprise's damping.
"""

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions, mean_weights
from tfrec.layers import Embedding, Products
from tfrec.models.base import Batch, Recommender
from tfrec.settings import NoSettings


class Popularity(Recommender):
    """Scores in rating units (rating), or numbers of training rows or their weight (ranking)."""

    closed_form = True
    batch_columns = ()
    takes_weights = ("ranking",)
    iterations = 10  # how often the biases are solved for in turn

    def __init__(self, train: Interactions, settings: NoSettings) -> None:
        super().__init__(name="popularity", dtype="float32")  # counts, which bfloat16 would round
        self.rates = train.task == "rating"
        self.mean = self.add_weight(shape=(), initializer="zeros", name="mean")
        self.users = Embedding(train.num_users, {"bias": 1}, "user")
        self.products = Embedding(train.num_products, {"bias": 1}, "product")
        self.new = self.add_weight(shape=(2,), initializer="zeros", name="new")  # (b_u, b_p)
        self.trainable = False

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        return (
            self.mean
            + tf.expand_dims(self.users(batch["user"])["bias"], 1)
            + self.products(products)["bias"]
        )

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        if not self.rates:
            return None
        of_product = self.mean + self.products(None)["bias"][None]  # [1, P]
        rest = weight * (ratings - self.mean - self.products(products)["bias"])
        return of_product + tf.reduce_sum(rest, axis=1, keepdims=True) / (
            15 + tf.reduce_sum(weight, axis=1, keepdims=True)
        )

    def of_known(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor:
        of_user, of_product = (
            tf.where(at >= 0, table(tf.maximum(at, 0))["bias"], new)
            for table, at, new in zip(
                (self.users, self.products), (user, product), tf.unstack(self.new.value)
            )
        )
        return self.mean + of_user + of_product

    def fit_closed_form(self, train: Interactions) -> None:
        """Reads the rows some after the others: they need not fit into memory."""
        of_user, of_product = (
            np.zeros(self.users.table.shape[0]),
            np.zeros(self.products.table.shape[0]),
        )
        count_user, count_product, sum_y = np.zeros_like(of_user), np.zeros_like(of_product), 0.0
        for part in train.chunks():
            count_user += np.bincount(part["user"], minlength=len(of_user))
            weight = None if self.rates else part.get("weight")
            count_product += np.bincount(part["product"], weight, len(of_product))
            sum_y += np.sum(part["rating"], dtype=np.float64)
        if not self.rates:
            self.products.table.assign(count_product[:, None])
            return
        mean = sum_y / count_user.sum()

        def residuals(side: str, other: str, of_other: np.ndarray, size: int) -> np.ndarray:
            """Sums of y - mu - the bias of the other, of each user or product."""
            total = np.zeros(size)
            for part in train.chunks():
                total += np.bincount(
                    part[side], part["rating"] - mean - of_other[part[other]], size
                )
            return total

        for _ in range(self.iterations):
            of_product = residuals("product", "user", of_user, len(of_product)) / (
                10 + count_product
            )
            of_user = residuals("user", "product", of_product, len(of_user)) / (15 + count_user)
        self.mean.assign(mean)
        share = train.cold_share("product")
        new = (
            mean_weights(count_user, 1.0) @ of_user,
            mean_weights(count_product, share) @ of_product,
        )
        self.new.assign(new)
        self.users.table.assign(np.where(count_user, of_user, new[0])[:, None])
        self.products.table.assign(np.where(count_product, of_product, new[1])[:, None])


class GlobalMean(Popularity):
    """Rating: y^(u, p) = mu."""

    iterations = 0
