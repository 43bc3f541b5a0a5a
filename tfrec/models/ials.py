"""Implicit ALS: matrix factorisation of who took what, with a say for everything that nobody took, each side solved for in turn.

    y^(u, p) = <x_u, z_p>
    loss = sum_(u, p) in S (y^ - 1)^2 + a sum_(all u, p) y^^2 + sum_u l_u |x_u|^2 + sum_p l_p |z_p|^2
    l_u = l2 (n_u + a P),   l_p = l2 (n_p + a U)

S holds the training rows, n_u of a user and n_p of a product; a is the weight of the unobserved. With the products given,

    x_u = (a Z^T Z + sum_(p in S_u) z_p z_p^T + l_u I)^-1  sum_(p in S_u) z_p

is a user's least loss, and a product's likewise. A sweep solves for all products, then for all users.
Sources: Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", 2008; l_u and l_p: Rendle, Krichene, Zhang and
Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", 2021 (their exponent of the frequencies is 1 here).
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.models.base import Batch, Recommender
from tfrec.models.layers import Embedding, Products, dot

FLOATS_AT_ONCE = 4_000_000  # of one array: 16 MB


class ImplicitALS(Recommender):
    """Scores near 1 for what the user would take, near 0 for the rest; the ranking task only.

    A user without training rows gets the mean factors of the others; a product without them has factors 0.
    unobserved: a. The factors start from a fixed draw, so that fitting again gives the same model.
    """

    tasks = ("ranking",)
    closed_form = True

    def __init__(
        self, num_users: int, num_products: int, dim: int = 50, sweeps: int = 10, unobserved: float = 0.3, l2: float = 0.01
    ) -> None:
        super().__init__(name="ials", dtype="float32")
        self.sweeps, self.unobserved, self.l2 = sweeps, unobserved, l2
        self.user, self.product = Embedding(num_users, {"factors": dim}), Embedding(num_products, {"factors": dim})
        self.trainable = False

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        return dot(self.user(batch["user"])["factors"], self.product(products)["factors"])

    def score_new(self, products: tf.Tensor, y: tf.Tensor, weight: tf.Tensor) -> tf.Tensor | None:
        row = tf.broadcast_to(tf.range(tf.shape(products)[0])[:, None], tf.shape(products))
        places, z = tf.stack([row, products], axis=2), self.product(None)["factors"]
        count = tf.scatter_nd(places, weight, [tf.shape(products)[0], tf.shape(z)[0]])
        once = tf.math.divide_no_nan(weight, tf.gather_nd(count, places))  # a product that is given twice counts once
        return dot(self.solve(z, self._gram(z), products, once), z)

    def adapt(self, examples: dict[str, Any]) -> None:
        """examples: user, product int [n]; of rows with the same user and product one counts."""
        user, product = (np.asarray(examples[name]) for name in ("user", "product"))
        num_users, num_products = self.user.table.shape[0], self.product.table.shape[0]
        keys = np.unique(user.astype(np.int64) * num_products + product)
        user, product = keys // num_products, keys % num_products
        shape = self.user.table.shape
        self.user.table.assign(tf.random.stateless_normal(shape, [0, 0], stddev=0.1 / shape[1] ** 0.5))
        for _ in range(self.sweeps):
            self.sweep(user, product)
        known = np.bincount(user, minlength=num_users) > 0
        self.average_untrained(known, np.ones(num_products, bool))

    def sweep(self, user: np.ndarray, product: np.ndarray) -> None:
        """The products' factors from the users', then the users' from the products'. user, product: int [n], each pair once."""
        for of, by, mine, other in ((product, user, self.product, self.user), (user, product, self.user, self.product)):
            given, solved = other(None)["factors"], np.zeros(mine.table.shape, np.float32)
            gram = self._gram(given)
            for ids, others, weight in blocks(of, by, given.shape[1]):
                solved[ids] = self.solve(given, gram, others, weight)
            mine.table.assign(solved)

    def solve(self, given: tf.Tensor, gram: tf.Tensor, others: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
        """Factors f32 [B, d] of users (products) who took others, int32 [B, L]; weight f32 [B, L] is 1, or 0 for padding.

        given: f32 [M, d], the factors of the other side. gram: f32 [d, d], of these.
        """
        rows = tf.gather(given, others)
        weighted = weight[:, :, None] * rows
        l2 = self.l2 * (tf.reduce_sum(weight, axis=1) + self.unobserved * tf.cast(tf.shape(given)[0], tf.float32))
        matrix = tf.matmul(weighted, rows, transpose_a=True) + gram + l2[:, None, None] * tf.eye(given.shape[1])
        return tf.linalg.cholesky_solve(tf.linalg.cholesky(matrix), tf.reduce_sum(weighted, axis=1)[:, :, None])[:, :, 0]

    def _gram(self, given: tf.Tensor) -> tf.Tensor:
        """a Z^T Z, f32 [d, d]."""
        return self.unobserved * tf.matmul(given, given, transpose_a=True)


def blocks(of: np.ndarray, by: np.ndarray, dim: int) -> Any:
    """Pairs int [n], [n] by the first one: (ids [B], others int32 [B, L], weight f32 [B, L], 0 for padding), of those who have some.

    The longest lists come first, so that little of a block is padding; neither its [B, L, d] nor its [B, d, d] is above FLOATS_AT_ONCE
    unless it is a single list.
    """
    by = by[np.argsort(of, kind="stable")].astype(np.int32)
    ids, start, count = np.unique(np.sort(of), return_index=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    ids, start, count = ids[order], start[order], count[order]
    first = 0
    while first < len(ids):
        part = slice(first, first + max(FLOATS_AT_ONCE // (dim * max(count[first], dim)), 1))
        place = np.arange(count[first])
        inside = place < count[part, None]
        yield ids[part], by[np.where(inside, start[part, None] + place, 0)], inside.astype(np.float32)
        first = part.stop
