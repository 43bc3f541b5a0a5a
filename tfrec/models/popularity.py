"""Popularity: what can be said without knowing the user's taste.

    rating:   y^(u, p) = mu + b_u + b_p
              b_p = sum_u (y - mu - b_u) / (10 + n_p),   b_u = sum_p (y - mu - b_p) / (15 + n_u),
              in turn, 10 times
    ranking:  y^(u, p) = n_p

n counts training rows. Source: Koren, "Factor in the Neighbors", 2010, section 2.1, with Surprise's
damping.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.layers import Embedding, Products
from tfrec.models.base import Batch, Recommender


class Popularity(Recommender):
    """Scores in target units (rating), or numbers of training rows (ranking)."""

    closed_form = True

    def __init__(
        self, num_users: int, num_products: int, task: str = "rating", sweeps: int = 10
    ) -> None:
        super().__init__(name="popularity", dtype="float32")  # counts, which bfloat16 would round
        self.task, self.sweeps = task, sweeps
        self.mean = self.add_weight(shape=(), initializer="zeros", name="mean")
        self.user, self.product = (
            Embedding(num_users, {"bias": 1}),
            Embedding(num_products, {"bias": 1}),
        )
        self.trainable = False

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        return (
            self.mean
            + tf.expand_dims(self.user(batch["user"])["bias"], 1)
            + self.product(products)["bias"]
        )

    def fold_in_scores(
        self, products: tf.Tensor, y: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        if self.task == "ranking":
            return None
        of_product = self.mean + self.product(None)["bias"][None]  # [1, P]
        rest = weight * (y - self.mean - self.product(products)["bias"])
        return of_product + tf.reduce_sum(rest, axis=1, keepdims=True) / (
            15 + tf.reduce_sum(weight, axis=1, keepdims=True)
        )

    def of_known(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor:
        """What can be said where an id is unknown (-1).

        The mean and the bias of the other one. int32 [B], [B] -> f32 [B].
        """
        of_user = tf.where(user >= 0, self.user(tf.maximum(user, 0))["bias"], 0.0)
        of_product = tf.where(product >= 0, self.product(tf.maximum(product, 0))["bias"], 0.0)
        return self.mean + of_user + of_product

    def fit_closed_form(
        self, examples: dict[str, Any] | Callable[[], Iterable[dict[str, Any]]]
    ) -> None:
        """examples.

        User, product int [n], y f32 [n]; or what yields such parts of them, which are not held in
        memory together.
        """
        parts = examples if callable(examples) else lambda: [examples]
        of_user, of_product = (
            np.zeros(self.user.table.shape[0]),
            np.zeros(self.product.table.shape[0]),
        )
        count_user, count_product, sum_y = np.zeros_like(of_user), np.zeros_like(of_product), 0.0
        for part in parts():
            count_user += np.bincount(part["user"], minlength=len(of_user))
            count_product += np.bincount(part["product"], minlength=len(of_product))
            sum_y += np.sum(part["y"], dtype=np.float64)
        if self.task == "ranking":
            self.product.table.assign(count_product[:, None])
            return
        mean = sum_y / count_user.sum()

        def residuals(side: str, other: str, of_other: np.ndarray, size: int) -> np.ndarray:
            """Sums of y - mu - the bias of the other, of each user or product."""
            total = np.zeros(size)
            for part in parts():
                total += np.bincount(part[side], part["y"] - mean - of_other[part[other]], size)
            return total

        for _ in range(self.sweeps):
            of_product = residuals("product", "user", of_user, len(of_product)) / (
                10 + count_product
            )
            of_user = residuals("user", "product", of_product, len(of_user)) / (15 + count_user)
        self.mean.assign(mean)
        self.user.table.assign(of_user[:, None])
        self.product.table.assign(of_product[:, None])
