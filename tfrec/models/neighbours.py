"""Neighbourhood collaborative filtering: products judged by the user's most similar products, or by
their most similar users.

    rating, item_knn:  y^(u, p) = b_up + sum_q s_pq (y_uq - b_uq) / (0.5 + sum_q s_pq)
    rating, user_knn:  y^(u, p) = b_up + sum_v s_uv (y_vp - b_vp) / (0.5 + sum_v s_uv)
    ranking:           y^(u, p) = sum_q s_pq d_uq,  or sum_v s_uv d_vp

q are those of the k products nearest to p that u rated, v those of the k users nearest to u who
rated p. b is the bias model (popularity.py); where no neighbour rated, y^ = b, and the 0.5 lets few
or weak ones say little. With d = y - b in the rating task, and the row's weight, or 1, in the
ranking task,

    s_ac = n_ac / (n_ac + shrinkage)  <d_a, d_c> / (|d_a| |d_c|)

is the shrunk cosine of two products (over users) or of two users (over products), n_ac the number
of entries that they share. In the rating task the norms run over the shared entries only. Only s >
0 count. Sources: Sarwar et al., "Item-based collaborative filtering recommendation algorithms",
2001; Koren, "Factor in the Neighbors", 2010.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.layers import Products
from tfrec.models.base import Batch, Recommender
from tfrec.models.popularity import Popularity
from tfrec.settings import setting

DAMPING = 0.5  # chosen on validation rows of ml-latest-small: 0 costs 0.02 in RMSE
FLOATS_AT_ONCE = 4_000_000  # of one array: 16 MB; about ten are alive at a time


CONFIDENCE = (
    "confidence weight of a training row: (rating / highest rating) ^ confidence_power; 0: all "
    "weigh alike"
)

RECENCY = (
    "how much more a user's latest rows count when products are scored: the latest 1 + recency "
    "times, one with i later rows 1 + recency e^(-i / 10) times; 0: all alike; unset: picked on "
    "validation rows between 0 and 10 where rows have timestamps, else 0"
)
RECENCIES = (0.0, 2.0, 5.0, 10.0)


class Neighbours(Recommender):
    """What the two have in common: the training rows as a sparse matrix, and each product's
    (user's) nearest others.

    keys int64 [n], n training rows: user * P + product, sorted, filled up with U * P; values
    f32 [n]: d. nearest int32 [A, k] and similarity f32 [A, k], best first, A the number of products
    (users); filled up with similarity 0.
    """

    closed_form = True
    batch_columns = ()
    takes_weights = ("ranking",)
    side: ClassVar[str]  # whose neighbours they are

    @dataclass(frozen=True)
    class Settings:
        neighbours: int | None = setting(
            None,
            "how many nearest products (users) of each one are kept; unset: picked on validation "
            "rows between 30 and 300, else 100",
            low=1,
            picks=(100, 30, 300),
        )
        shrinkage: float | None = setting(
            None,
            "a similarity that rests on n shared entries counts n / (n + shrinkage); unset: picked "
            "on validation rows between 10 and 250, else 50",
            low=0.0,
            picks=(50.0, 10.0, 250.0),
        )

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name=f"{self.side}_knn", dtype="float32")
        assert settings.neighbours and settings.shrinkage is not None  # from_data fills them
        self.num_users, self.num_products = train.num_users, train.num_products
        self.shrinkage, num_rows = settings.shrinkage, len(train)
        of = self.num_users if self.side == "user" else self.num_products
        rating = train.task == "rating"
        self.baseline = Popularity.from_data(train, "rating") if rating else None
        self.keys = self._constant((num_rows,), "int64", "keys")
        self.values = self._constant((num_rows,), "float32", "values")
        shape = (of, min(settings.neighbours, of))
        self.nearest = self._constant(shape, "int32", "nearest")
        self.similarity = self._constant(shape, "float32", "similarity")

    def _constant(self, shape: tuple[int, ...], dtype: str, name: str) -> tf.keras.Variable:
        return self.add_weight(
            shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name
        )

    def fit_closed_form(self, train: Interactions) -> None:
        """Of rows with the same user and product the mean counts."""
        columns = train.columns()
        user, product, y = columns["user"], columns["product"], columns["rating"]
        if self.baseline is not None:
            self.baseline.fit_closed_form(train)
            pairs = {"user": tf.constant(user), "product": tf.constant(product)}
            y = y - self.baseline(pairs).numpy()
        else:
            y = columns.get("weight", np.ones_like(y))
        keys, row = np.unique(
            user.astype(np.int64) * self.num_products + product, return_inverse=True
        )
        values = np.bincount(row, y) / np.bincount(row)
        padding = self.keys.shape[0] - len(keys)
        self.keys.assign(
            np.pad(keys, (0, padding), constant_values=self.num_users * self.num_products)
        )
        self.values.assign(np.pad(values, (0, padding)))
        nearest, similarity = self._find(
            keys // self.num_products, keys % self.num_products, values
        )
        self.nearest.assign(nearest)
        self.similarity.assign(similarity)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        if products is None or products.shape.rank == 1:
            total, weight = self._every(batch["user"])
            if products is not None:
                total, weight = (
                    tf.gather(total, products, axis=1),
                    tf.gather(weight, products, axis=1),
                )
        else:
            k = self.nearest.shape[1]
            total, weight = in_blocks(
                self._pairs, batch["user"], products, k, (tf.float32, tf.float32)
            )
        return (
            total
            if self.baseline is None
            else self.baseline.score(batch, products) + total / (DAMPING + weight)
        )

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        size = tf.shape(products)[0]
        base = (
            None
            if self.baseline is None
            else self.baseline.fold_in_scores(products, ratings, weight)
        )
        d = tf.ones_like(ratings)
        if base is not None:
            d = ratings - tf.gather(base, products, axis=1, batch_dims=1)
        row = tf.repeat(tf.range(size), tf.shape(products)[1])
        places, shape = (
            tf.stack([tf.reshape(products, [-1]), row], axis=1),
            [self.num_products, size],
        )
        count = tf.scatter_nd(places, tf.reshape(weight, [-1]), shape)
        values = tf.math.divide_no_nan(
            tf.scatter_nd(places, tf.reshape(weight * d, [-1]), shape), count
        )  # of repeated ones the mean
        total, share = self._of_new(values, tf.minimum(count, 1.0))
        return total if base is None else base + total / (DAMPING + share)

    def _find(
        self, user: np.ndarray, product: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns the training rows [n] -> nearest int32 [A, k], similarity f32 [A, k]."""
        rows, columns, shape = user, product, (self.num_users, self.num_products)
        if self.side == "item":
            rows, columns, shape = product, user, (self.num_products, self.num_users)
        k, shared_norms = self.nearest.shape[1], self.baseline is not None
        return find_nearest(rows, columns, values, shape, k, self.shrinkage, shared_norms)

    def _of_new(self, values: tf.Tensor, rated: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """d, and 1 where they rated, of new users, f32 [P, B] each -> the sums of `_every`, f32 [B,
        P] each.
        """
        raise NotImplementedError

    def _every(self, user: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """user [B] -> sum of s d and sum of s over the neighbours who rated, for every product.

        F32 [B, P] each.
        """
        raise NotImplementedError

    def _pairs(self, user: tf.Tensor, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """user [B], products [B, N] -> the same sums, f32 [B, N] each."""
        raise NotImplementedError

    def _look_up(self, user: tf.Tensor, product: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """int32 [...], [...] that broadcast -> d (0 where the user did not rate the product) and 1
        where they did: f32 [...] each.
        """
        key = tf.cast(user, tf.int64) * self.num_products + tf.cast(product, tf.int64)
        place = tf.searchsorted(self.keys.value, tf.reshape(key, [-1]))
        place = tf.reshape(tf.minimum(place, self.keys.shape[0] - 1), tf.shape(key))
        rated = tf.cast(tf.equal(tf.gather(self.keys.value, place), key), tf.float32)
        return tf.gather(self.values.value, place) * rated, rated


class ItemKNN(Neighbours):
    """Products judged by the user's ratings of similar products."""

    side = "item"
    floats_per_score = 4  # of each user the sums and d, and which products they rated

    def _every(self, user: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place, row, product = entries(self.keys.value, user, self.num_products)
        places = tf.stack([product, row], axis=1)
        shape = [self.num_products, tf.shape(user)[0]]
        of_users = tf.scatter_nd(places, tf.gather(self.values.value, place), shape)
        return self._of_new(of_users, tf.scatter_nd(places, tf.ones(tf.shape(places)[:1]), shape))

    def _of_new(self, values: tf.Tensor, rated: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of = tf.repeat(tf.range(self.num_products), self.nearest.shape[1])
        similarity = _sparse(
            of,
            tf.reshape(self.nearest.value, [-1]),
            tf.reshape(self.similarity.value, [-1]),
            [self.num_products] * 2,
        )
        total, weight = (
            tf.sparse.sparse_dense_matmul(similarity, part) for part in (values, rated)
        )
        return tf.transpose(total), tf.transpose(weight)

    def _pairs(self, user: tf.Tensor, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, rated = self._look_up(user[:, None, None], tf.gather(self.nearest.value, products))
        similarity = tf.gather(self.similarity.value, products)  # [B, N, k]
        return tf.reduce_sum(similarity * values, axis=2), tf.reduce_sum(similarity * rated, axis=2)


class UserKNN(Neighbours):
    """Products judged by the ratings of similar users."""

    side = "user"

    def __init__(self, train: Interactions, settings: Neighbours.Settings) -> None:
        super().__init__(train, settings)
        # of each user the sums, and their similarity to all users
        self.floats_per_score = 2 + -(-self.num_users // self.num_products)

    def _every(self, user: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._of_nearest(
            tf.gather(self.nearest.value, user), tf.gather(self.similarity.value, user)
        )

    def _of_new(self, values: tf.Tensor, rated: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        of_values, of_one, of_squared = (
            self._ratings(lambda d: d),
            self._ratings(tf.ones_like),
            self._ratings(tf.square),
        )
        matmul, squared = (
            functools.partial(tf.sparse.sparse_dense_matmul, adjoint_a=True),
            tf.square(values),
        )
        shared = matmul(of_one, rated)  # [U, B]
        if self.baseline is None:
            norms = matmul(of_squared, tf.ones_like(rated)) * tf.reduce_sum(squared, axis=0)
        else:
            norms = matmul(of_squared, rated) * matmul(of_one, squared)
        cosine = tf.math.divide_no_nan(matmul(of_values, values), tf.sqrt(norms))
        similarity = tf.transpose(cosine * (shared / (shared + max(self.shrinkage, 1e-9))))
        found = tf.math.top_k(similarity, self.nearest.shape[1])
        return self._of_nearest(found.indices, tf.nn.relu(found.values))

    def _of_nearest(self, nearest: tf.Tensor, similarity: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the k nearest users of each of B users, int32 and f32 [B, k] -> the sums of
        `_every`.
        """
        size, k = tf.shape(nearest)[0], self.nearest.shape[1]
        places = tf.stack([tf.reshape(nearest, [-1]), tf.repeat(tf.range(size), k)], axis=1)
        of_users = tf.scatter_nd(places, tf.reshape(similarity, [-1]), [self.num_users, size])
        total, weight = (
            tf.sparse.sparse_dense_matmul(self._ratings(part), of_users)
            for part in (lambda d: d, tf.ones_like)
        )
        return tf.transpose(total), tf.transpose(weight)

    def _ratings(self, of: Callable[[tf.Tensor], tf.Tensor]) -> tf.SparseTensor:
        """of(d) of the training rows, sparse [P, U]."""
        count = tf.searchsorted(
            self.keys.value, [tf.constant(self.num_users * self.num_products, tf.int64)]
        )[0]  # without padding
        keys, values = self.keys.value[:count], self.values.value[:count]
        return _sparse(
            keys % self.num_products,
            keys // self.num_products,
            of(values),
            [self.num_products, self.num_users],
        )

    def _pairs(self, user: tf.Tensor, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values, rated = self._look_up(
            tf.gather(self.nearest.value, user)[:, None, :], products[:, :, None]
        )
        similarity = tf.gather(self.similarity.value, user)[:, None, :]  # [B, 1, k]
        return tf.reduce_sum(similarity * values, axis=2), tf.reduce_sum(similarity * rated, axis=2)


def counted(train: Interactions, power: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Returns what rows count in an implicit model: their weight, with mean 1, times the
    confidence that the rating gives.

    Of rows with the same user and product that with the highest rating counts.

    Returns:
        keys int64 [m] (user * P + product, sorted, each once), their confidence f32 [m], and the
        highest rating.
    """
    columns = train.columns()
    user, product, rating = columns["user"], columns["product"], columns["rating"]
    order = np.argsort(-rating, kind="stable")
    keys, first = np.unique(
        user[order].astype(np.int64) * train.num_products + product[order], return_index=True
    )
    highest = float(rating.max(initial=0.0))
    best = tf.constant(rating[order][first], tf.float32)
    counts = confidence(best, tf.constant(highest), power).numpy()
    if "weight" in columns:
        weight = columns["weight"][order][first]
        counts *= weight / weight.mean()
    return keys, counts, highest


def recent(train: Interactions, keys: np.ndarray, recency: float) -> np.ndarray:
    """Returns how much more a user's latest products count, with mean 1 over theirs, f32 [m].

    Args:
        keys: user * P + product of the training rows, sorted, each once.
        recency: See Interactions.recency_weights; of several rows of a pair the latest counts.
    """
    weights = np.ones(len(keys), np.float32)
    if not recency:
        return weights
    columns = train.columns()
    of_rows = columns["user"].astype(np.int64) * train.num_products + columns["product"]
    np.maximum.at(weights, np.searchsorted(keys, of_rows), train.recency_weights(recency))
    user = keys // train.num_products
    count = np.bincount(user, minlength=train.num_users)
    total = np.bincount(user, weights, minlength=train.num_users)
    return (weights * (count / np.maximum(total, 1))[user]).astype(np.float32)


def confidence(y: tf.Tensor, highest: tf.Tensor, power: float) -> tf.Tensor:
    """(y / highest)^power of ratings y f32 [...], of which those below 0 count as 0."""
    return tf.math.divide_no_nan(tf.nn.relu(y), highest) ** power


def entries(
    keys: tf.Tensor, user: tf.Tensor, num_products: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns what the users int32 [B] have in keys (sorted, user * P + product).

    Place in keys, row 0 .. B - 1 and product, int32 [n] each.
    """
    first = tf.cast(user, tf.int64) * num_products
    place = tf.ragged.range(
        tf.searchsorted(keys, first), tf.searchsorted(keys, first + num_products)
    )  # [B, rows of the user]
    product = tf.cast(tf.gather(keys, place.values) % num_products, tf.int32)
    return place.values, tf.cast(place.value_rowids(), tf.int32), product


def in_blocks(
    pairs: Callable[..., Any],
    user: tf.Tensor,
    products: tf.Tensor,
    floats: Any,
    signature: Any = tf.float32,
) -> Any:
    """pairs(user, products) in equal blocks of rows, so that no [B, N, floats] is made.

    user [B], products [B, N]; pairs gives f32 [B, N], or as many of them as the signature says.
    """
    size, width = tf.shape(products)[0], tf.shape(products)[1]
    rows = tf.maximum(
        FLOATS_AT_ONCE // tf.maximum(width, 1) // tf.maximum(floats, 1), 1
    )  # a block has at most so many
    blocks = tf.maximum(-(-size // rows), 1)
    rows = -(-size // blocks)
    padding = blocks * rows - size
    user = tf.reshape(tf.pad(user, [[0, padding]]), [blocks, rows])
    products = tf.reshape(tf.pad(products, [[0, padding], [0, 0]]), [blocks, rows, width])
    found = tf.map_fn(lambda block: pairs(*block), (user, products), fn_output_signature=signature)
    return tf.nest.map_structure(
        lambda part: tf.reshape(part, [blocks * rows, width])[:size], found
    )


def find_nearest(
    row: np.ndarray,
    column: np.ndarray,
    values: np.ndarray,
    shape: tuple[int, int],
    k: int,
    shrinkage: float,
    shared_norms: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the k most similar rows of each row of a sparse matrix [A, X], itself left out.

    Args:
        row, column, values: Its entries [n], each place once.
        shape: (A, X).
        k: How many rows.
        shrinkage: Added to the denominator of the cosine.
        shared_norms: Whether the cosine's norms run over the entries that both rows have, not over
            the whole rows.

    Returns:
        ids int32 [A, k] and similarities f32 [A, k], falling, 0 where there is no further row with
        a positive one.
    """
    known, row = np.unique(row, return_inverse=True)  # rows without entries cost nothing
    order = np.argsort(row, kind="stable")
    row, column, values = row[order], column[order], values[order].astype(np.float32)
    if not shared_norms:
        values = values / np.sqrt(np.bincount(row, values**2))[row].astype(
            np.float32
        )  # of length 1, so <., .> is the cosine
    columns = (values, np.ones_like(values), values**2)
    size, matmul = (len(known), shape[1]), tf.sparse.sparse_dense_matmul  # [A, X] by [X, block]
    all_values, all_one, all_squared = (_sparse(row, column, x, size) for x in columns)
    ids, similarity = np.zeros((shape[0], k), np.int32), np.zeros((shape[0], k), np.float32)
    rows_at_once = max(FLOATS_AT_ONCE // max(size), 1)
    for first in range(0, len(known), rows_at_once):
        last = min(first + rows_at_once, len(known))
        part = slice(*np.searchsorted(row, [first, last]))
        places = np.stack([column[part], row[part] - first], axis=1)
        of_values, of_one, of_squared = (
            tf.scatter_nd(places, x[part], [size[1], last - first]) for x in columns
        )
        shared, cosine = matmul(all_one, of_one), matmul(all_values, of_values)
        if shared_norms:
            cosine = tf.math.divide_no_nan(
                cosine, tf.sqrt(matmul(all_squared, of_one) * matmul(all_one, of_squared))
            )
        block = tf.transpose(
            cosine * (shared / (shared + max(shrinkage, 1e-9)))
        )  # no entry shared: cosine 0
        itself = tf.range(first, last)[:, None] == tf.range(len(known))
        found = tf.math.top_k(tf.where(itself, 0.0, block), min(k, len(known)))
        ids[known[first:last], : len(known)] = known[found.indices]
        similarity[known[first:last], : len(known)] = tf.nn.relu(found.values)
    return ids, similarity


def _sparse(row: Any, column: Any, values: Any, shape: Any) -> tf.SparseTensor:
    return tf.SparseTensor(tf.cast(tf.stack([row, column], axis=1), tf.int64), values, shape)
