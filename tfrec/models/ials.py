"""Implicit ALS: matrix factorisation of who took what, with a say for everything that nobody took,
each side solved for in turn.

    y^(u, p) = <x_u, z_p>
    loss = sum_(u, p) in S w_up (y^ - 1)^2 + a sum_(all u, p) y^^2
           + sum_u l_u |x_u|^2 + sum_p l_p |z_p|^2
    l_u = l2 (sum_p w_up + a P),   l_p = l2 (sum_u w_up + a U)

S holds the training rows, w_up = c (y / highest y)^power of one with target y, where c is the row's
weight, with mean 1, or 1; a is the weight of the unobserved. With the products given,

    x_u = (a Z^T Z + sum_(p in S_u) w_up z_p z_p^T + l_u I)^-1  sum_(p in S_u) w_up z_p

is a user's least loss, and a product's likewise. An iteration solves for all products, then for all
users. With recency r the users are solved for once more, with the w_up of a user's latest rows
larger: times c_u (1 + r e^(-i / 10)), where i of their rows are later, and c_u makes the user's
mean 1: what they took last says more of what they take next. Sources: Hu, Koren and Volinsky,
"Collaborative Filtering for Implicit Feedback Datasets", 2008; l_u and l_p: Rendle, Krichene, Zhang
and Koren, "Revisiting the Performance of iALS on Item Recommendation Benchmarks", 2021 (their
exponent of the frequencies is 1 here).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.layers import Embedding, Products, dot
from tfrec.models.base import Batch, Recommender
from tfrec.models.neighbours import (
    CONFIDENCE,
    RECENCIES,
    RECENCY,
    confidence,
    counted,
    recent,
)
from tfrec.settings import setting

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]
FLOATS_AT_ONCE = 4_000_000  # of one array: 16 MB


class ImplicitALS(Recommender):
    """Scores near 1 for what the user would take, near 0 for the rest; the ranking task only.

    A user without training rows gets the mean factors of the others; a product without them has
    factors 0. highest f32 []: the highest rating. The factors start from a fixed draw, so that
    fitting again gives the same model.
    """

    tasks = ("ranking",)
    closed_form = True
    batch_columns = ()
    takes_weights = ("ranking",)

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = setting(50, "width of the user and product embeddings", low=1)
        iterations: int = setting(
            10, "passes, each of which solves for all products, then for all users", low=1
        )
        unobserved_weight: float | None = setting(
            None,
            "weight of unobserved entries, relative to 1 for observed ones; unset: picked on "
            "validation rows between 0.05 and 1, else 0.3",
            low=1e-9,
            picks=(0.3, 0.05, 0.1, 0.2, 0.5, 1.0),
        )
        ials_l2: float | None = setting(
            None,
            "L2 on a user's (product's) factors, for each of the errors that they take part in; "
            "unset: picked on validation rows between 0.001 and 0.1, else 0.01",
            low=1e-9,
            picks=(0.01, 0.001, 0.002, 0.005, 0.02, 0.05, 0.1),
        )
        confidence_power: float = setting(0.0, CONFIDENCE, low=0.0)
        recency: float | None = setting(None, RECENCY, low=0.0, picks=RECENCIES)

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="ials", dtype="float32")
        assert settings.unobserved_weight and settings.ials_l2  # from_data fills them
        self.iterations, self.unobserved = settings.iterations, settings.unobserved_weight
        self.l2, self.power = settings.ials_l2, settings.confidence_power
        train.check_recency(settings.recency)
        self.recency = settings.recency or 0.0
        widths = {"factors": settings.embedding_dim}
        self.users = Embedding(train.num_users, widths, "user")
        self.products = Embedding(train.num_products, widths, "product")
        self.highest = self.add_weight(shape=(), initializer="ones", name="highest")
        self.trainable = False

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        return dot(self.users(batch["user"])["factors"], self.products(products)["factors"])

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        row = tf.broadcast_to(tf.range(tf.shape(products)[0])[:, None], tf.shape(products))
        places, z = tf.stack([row, products], axis=2), self.products(None)["factors"]
        weight = weight * confidence(ratings, self.highest.value, self.power)
        shape = [tf.shape(products)[0], tf.shape(z)[0]]
        best = tf.gather_nd(tf.tensor_scatter_nd_max(tf.zeros(shape), places, weight), places)
        total = tf.gather_nd(tf.scatter_nd(places, weight, shape), places)
        once = tf.math.divide_no_nan(
            weight * best, total
        )  # of a product that is given twice the better one counts
        return dot(self.solve(z, self._gram(z), products, once), z)

    def fit_closed_form(self, train: Interactions) -> None:
        num_users, num_products = self.users.table.shape[0], self.products.table.shape[0]
        keys, weight, highest = counted(train, self.power)
        self.highest.assign(highest)
        user, product = keys // num_products, keys % num_products
        shape = self.users.table.shape
        self.users.table.assign(
            tf.random.stateless_normal(shape, [0, 0], stddev=0.1 / shape[1] ** 0.5)
        )
        for _ in range(self.iterations):
            self.solve_both(user, product, weight)
        if self.recency:
            weight = weight * recent(train, keys, self.recency)
            self.solve_side(self.users, self.products, (user, product, weight))
        known = np.bincount(user, minlength=num_users) > 0
        self.impute_cold_embeddings(known, np.ones(num_products, bool))

    def solve_both(self, user: np.ndarray, product: np.ndarray, weight: np.ndarray) -> None:
        """The products' factors from the users', then the users' from the products'."""
        self.solve_side(self.products, self.users, (product, user, weight))
        self.solve_side(self.users, self.products, (user, product, weight))

    def solve_side(self, mine: Embedding, other: Embedding, pairs: Pairs) -> None:
        """Solves for the factors of one side, given those of the other.

        pairs: ids of this side and of the other, int [n], each pair once, and w, f32 [n].
        """
        given, solved = other(None)["factors"], np.zeros(mine.table.shape, np.float32)
        gram = self._gram(given)
        for ids, others, weight in blocks(*pairs, given.shape[1]):
            solved[ids] = self.solve(given, gram, others, weight)
        mine.table.assign(solved)

    def solve(
        self, given: tf.Tensor, gram: tf.Tensor, others: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor:
        """Factors f32 [B, d] of users (products) who took others, int32 [B, L]; weight f32 [B, L]:
        w, 0 for padding.

        given: f32 [M, d], the factors of the other side. gram: f32 [d, d], of these.
        """
        rows = tf.gather(given, others)
        weighted = weight[:, :, None] * rows
        l2 = self.l2 * (
            tf.reduce_sum(weight, axis=1)
            + self.unobserved * tf.cast(tf.shape(given)[0], tf.float32)
        )
        matrix = (
            tf.matmul(weighted, rows, transpose_a=True)
            + gram
            + l2[:, None, None] * tf.eye(given.shape[1])
        )
        return tf.linalg.cholesky_solve(
            tf.linalg.cholesky(matrix), tf.reduce_sum(weighted, axis=1)[:, :, None]
        )[:, :, 0]

    def _gram(self, given: tf.Tensor) -> tf.Tensor:
        """a Z^T Z, f32 [d, d]."""
        return self.unobserved * tf.matmul(given, given, transpose_a=True)


def blocks(of: np.ndarray, by: np.ndarray, weight: np.ndarray, dim: int) -> Any:
    """Pairs int [n], [n] by the first one: (ids [B], others int32 [B, L], weight f32 [B, L], 0 for
    padding), of those who have some.

    The longest lists come first, so that little of a block is padding; neither its [B, L, d] nor
    its [B, d, d] is above FLOATS_AT_ONCE unless it is a single list.
    """
    by_id = np.argsort(of, kind="stable")
    by, weight = by[by_id].astype(np.int32), weight[by_id]
    ids, start, count = np.unique(np.sort(of), return_index=True, return_counts=True)
    order = np.argsort(-count, kind="stable")
    ids, start, count = ids[order], start[order], count[order]
    first = 0
    while first < len(ids):
        part = slice(first, first + max(FLOATS_AT_ONCE // (dim * max(count[first], dim)), 1))
        place = np.arange(count[first])
        inside = place < count[part, None]
        at = np.where(inside, start[part, None] + place, 0)
        yield ids[part], by[at], np.where(inside, weight[at], np.float32(0))
        first = part.stop
