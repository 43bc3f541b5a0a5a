"""EASE: a product is judged by the user's other products, with the weights of one ridge regression
for all.

    y^(u, p) = sum_q x_uq B_qp        B = argmin |X - X B|^2 + l2 |B|^2  with  B_pp = 0
    B_qp = -C_qp / C_pp (q != p)      C = (X^T X + l2 I)^-1

With recency r the x of a score are times c_u (1 + r e^(-i / 10)), where i rows of the user are
later than the pair's own, and c_u makes the user's mean 1: what they took last says more of what
they take next. B does not see it, and in a list that is folded in, whose order is not known, all
count alike.

X [U, P] is (y / highest y)^power where the user has a training row of the product, y its rating,
and 0 elsewhere; with power 0 all rows are 1. Weights of rows, with mean 1, multiply it. Where there
are fewer users than products, C comes from the smaller matrix of the users (Woodbury's identity):

    X X^T + l2 I = L L^T,  W = L^-1 X,  l2 C = I - W^T W,
    so that  B_qp = <w_q, w_p> / (1 - |w_p|^2)

A product without training rows has a column of zeros in X, so its row and column of B are zero and
leave the others as they are: it is kept out of the inverse, which is exact. B is dense: 4 P^2
bytes, 380 MB for 9,742 products. Source: Steck, "Embarrassingly Shallow Autoencoders for Sparse
Data", 2019.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.layers import Products
from tfrec.models.base import Batch, Recommender
from tfrec.models.neighbours import (
    CONFIDENCE,
    RECENCIES,
    RECENCY,
    confidence,
    counted,
    entries,
    in_blocks,
    recent,
)
from tfrec.settings import setting


class Ease(Recommender):
    """Scores near 1 for what the user would take (and like), near 0 for the rest; the ranking task
    only. Without training rows all are 0.

    keys int64 [n], n training rows: user * P + product, sorted, filled up with U * P; values
    f32 [n]: X there. between f32 [P, P]: B. highest f32 []: the highest rating.
    """

    tasks = ("ranking",)
    closed_form = True
    batch_columns = ()
    takes_weights = ("ranking",)

    @dataclass(frozen=True)
    class Settings:
        ease_l2: float | None = setting(
            None,
            "L2 on the weights between products, in units of one row's squared error; unset: "
            "picked on validation rows between 25 and 3,200, else 200",
            low=1e-3,
            picks=(200.0, 25.0, 50.0, 100.0, 400.0, 800.0, 1600.0, 3200.0),
        )
        confidence_power: float = setting(0.0, CONFIDENCE, low=0.0)
        recency: float | None = setting(None, RECENCY, low=0.0, picks=RECENCIES)

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="ease", dtype="float32")
        assert settings.ease_l2  # from_data fills it
        self.num_users, self.num_products = train.num_users, train.num_products
        self.l2, self.power = settings.ease_l2, settings.confidence_power
        train.check_recency(settings.recency)
        self.recency = settings.recency or 0.0
        num_rows, num_products = len(train), train.num_products
        self.keys = self.add_weight(
            shape=(num_rows,), dtype="int64", initializer="zeros", trainable=False, name="keys"
        )
        self.values = self.add_weight(
            shape=(num_rows,), initializer="zeros", trainable=False, name="values"
        )
        self.highest = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="highest"
        )
        self.between = self.add_weight(
            shape=(num_products, num_products), initializer="zeros", trainable=False, name="between"
        )

    def fit_closed_form(self, train: Interactions) -> None:
        keys, values, highest = counted(train, self.power)
        padding = (0, self.keys.shape[0] - len(keys))
        self.keys.assign(np.pad(keys, padding, constant_values=self.num_users * self.num_products))
        self.values.assign(np.pad(values * recent(train, keys, self.recency), padding))
        self.highest.assign(highest)
        users, row = np.unique(keys // self.num_products, return_inverse=True)
        products, column = np.unique(keys % self.num_products, return_inverse=True)
        between = np.zeros(self.between.shape, np.float32)
        between[np.ix_(products, products)] = regress(
            row, column, values, (len(users), len(products)), self.l2
        )
        self.between.assign(between)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        if products is not None and products.shape.rank == 2:
            first = tf.cast(batch["user"], tf.int64) * self.num_products
            longest = tf.reduce_max(
                tf.searchsorted(self.keys.value, first + self.num_products)
                - tf.searchsorted(self.keys.value, first)
            )
            return in_blocks(self._pairs, batch["user"], products, longest)
        at, row, product = entries(self.keys.value, batch["user"], self.num_products)
        places = tf.cast(tf.stack([row, product], axis=1), tf.int64)
        shape = tf.cast([tf.shape(batch["user"])[0], self.num_products], tf.int64)
        scores = self._of(tf.SparseTensor(places, tf.gather(self.values.value, at), shape))
        return scores if products is None else tf.gather(scores, products, axis=1)

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        size, length = tf.shape(products)[0], tf.shape(products)[1]
        places = tf.stack([tf.repeat(tf.range(size), length), tf.reshape(products, [-1])], axis=1)
        values = tf.reshape(weight * confidence(ratings, self.highest.value, self.power), [-1])
        x = tf.tensor_scatter_nd_max(
            tf.zeros([size, self.num_products]), places, values
        )  # given twice: the better one counts
        return self._of(tf.sparse.from_dense(x))

    def _of(self, x: tf.SparseTensor) -> tf.Tensor:
        """x B of users' rows of X, sparse [B, P] -> f32 [B, P]."""
        return tf.sparse.sparse_dense_matmul(x, tf.convert_to_tensor(self.between.value))

    def _pairs(self, user: tf.Tensor, products: tf.Tensor) -> tf.Tensor:
        """user [B], products [B, N] -> f32 [B, N], of each pair only its own weights."""
        at, row, product = entries(self.keys.value, user, self.num_products)
        wanted = tf.gather(products, row)  # [n, N]
        given = tf.broadcast_to(product[:, None], tf.shape(wanted))
        weights = tf.gather(self.values.value, at)[:, None] * tf.gather_nd(
            self.between.value, tf.stack([given, wanted], axis=2)
        )
        return tf.math.unsorted_segment_sum(weights, row, tf.shape(user)[0])


def memory(num_users: int, num_products: int, trained_users: int, trained_products: int) -> int:
    """Bytes that fitting takes at its peak, about: B four times over in float32 (computed, laid
    out, assigned, exported), and float64 arrays of the smaller of the two ways to invert.
    """
    if trained_users < trained_products:
        inverse = 8 * (2 * trained_users * trained_products + 2 * trained_users**2)
    else:
        inverse = 8 * 4 * trained_products**2
    return 4 * 4 * num_products**2 + inverse


def regress(
    row: np.ndarray, column: np.ndarray, values: np.ndarray, shape: tuple[int, int], l2: float
) -> tf.Tensor:
    """B, f32 [P, P], of the X [U, P] with values f32 [n] at (row, column) int [n], sorted by row,
    each place once and no column empty.

    The triangular solves are in float64; no array is larger than P x P.
    """
    num_users, num_products = shape
    places = np.stack([row, column], axis=1)
    if num_users < num_products:
        x = tf.scatter_nd(places, values.astype(np.float64), shape)
        root = tf.linalg.cholesky(
            tf.matmul(x, x, transpose_b=True) + l2 * tf.eye(num_users, dtype=tf.float64)
        )
        w = tf.linalg.triangular_solve(root, x)
        rest = tf.cast(
            1 - tf.reduce_sum(tf.square(w), axis=0), tf.float32
        )  # before it is rounded: near 0 for a popular product
        w = tf.cast(w, tf.float32)
        weights = tf.matmul(w, w, transpose_a=True) / rest
    else:
        gram = l2 * tf.eye(num_products, dtype=tf.float64)
        values = (
            values if (values == 1).all() else values.astype(np.float64)
        )  # counts are exact in float32, and take half the time
        for first in range(
            0, num_users, num_products
        ):  # users in blocks, each no larger than the result
            size = min(num_products, num_users - first)
            part = slice(*np.searchsorted(row, [first, first + size]))
            x = tf.scatter_nd(places[part] - [first, 0], values[part], [size, num_products])
            gram += tf.cast(tf.matmul(x, x, transpose_a=True), tf.float64)
        inverse = tf.linalg.cholesky_solve(
            tf.linalg.cholesky(gram), tf.eye(num_products, dtype=tf.float64)
        )
        weights = tf.cast(-inverse / tf.linalg.diag_part(inverse), tf.float32)
    return tf.linalg.set_diag(weights, tf.zeros(num_products))
