"""The parts that the models share.

`products` is int32 [B, N] (several for each row), int32 [N] (the same for all rows) or None (every product); a layer that scores
returns [B, N], or [B, P] for None, in float32 also under mixed precision. A user's side is computed once.
"""

from typing import TypeAlias

import tensorflow as tf

Products: TypeAlias = tf.Tensor | None


class Embedding(tf.keras.layers.Layer):
    """A table [rows, width], read by row: only the rows asked for are touched."""

    stand_in: tf.Tensor | None = None  # rows that are read in place of the table's, see Recommender.with_users

    def __init__(self, rows: int, width: int, initializer: str = "uniform", **kwargs: object) -> None:
        super().__init__(**kwargs)
        # autocast would read and cast the whole table under mixed precision
        self.table = self.add_weight(shape=(rows, width), initializer=initializer, name="table", autocast=False)

    def call(self, ids: tf.Tensor | None) -> tf.Tensor:
        """ids int32 [...] -> rows [..., width]; None -> the whole table."""
        table = self.table.value if self.stand_in is None else self.stand_in
        rows = tf.convert_to_tensor(table) if ids is None else tf.nn.embedding_lookup(table, ids)
        return tf.cast(rows, self.compute_dtype)


class Biases(tf.keras.layers.Layer):
    """mu + b_u + b_p; mu is a weight, the biases start at zero."""

    def __init__(self, num_users: int, num_products: int, mean: float, **kwargs: object) -> None:
        super().__init__(dtype="float32", **kwargs)  # small against the rest, and bfloat16 has three digits
        self.mean = self.add_weight(shape=(), initializer=tf.keras.initializers.Constant(mean), name="mean")
        self.user = Embedding(num_users, 1, "zeros", name="user", dtype="float32")
        self.product = Embedding(num_products, 1, "zeros", name="product", dtype="float32")

    def call(self, user: tf.Tensor, products: Products) -> tf.Tensor:
        """user [B] -> [B, N]."""
        return self.mean + self.user(user) + self.product(products)[..., 0]


class Interaction(tf.keras.layers.Layer):
    """<x_u, z_p>, or the cosine of the two, from tables of its own."""

    def __init__(self, num_users: int, num_products: int, dim: int, similarity: str = "dot", **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.similarity = similarity
        self.user = Embedding(num_users, dim, name="user")
        self.product = Embedding(num_products, dim, name="product")

    def call(self, user: tf.Tensor, products: Products) -> tf.Tensor:
        """user [B] -> [B, N]."""
        x, z = self.user(user), self.product(products)
        score = dot(x, z)
        if self.similarity == "cosine":  # one scalar a row instead of two normalised tables; like Keras, a zero row has cosine 0
            score *= _inverse_norm(x)[:, None] * _inverse_norm(z)
        return score


class PairMLP(tf.keras.layers.Layer):
    """relu(x_u K_1 + z_p K_2 + b) from tables of its own: a Dense layer over the concatenation [x_u, z_p], split in two.

    The split lets the user's part be computed once for all of his products, and the products' part once for all users.
    """

    def __init__(self, num_users: int, num_products: int, dim: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.user = Embedding(num_users, dim, name="user")
        self.product = Embedding(num_products, dim, name="product")
        self.hidden = tf.keras.layers.Dense(max(dim // 2, 1), name="hidden")
        self.hidden.build((None, 2 * dim))
        self.dim = dim

    def call(self, user: tf.Tensor, products: Products) -> tf.Tensor:
        """user [B] -> [B, N, dim / 2]."""
        kernel = tf.cast(self.hidden.kernel, self.compute_dtype)
        of_user = tf.matmul(self.user(user), kernel[: self.dim]) + tf.cast(self.hidden.bias, self.compute_dtype)
        of_product = tf.tensordot(self.product(products), kernel[self.dim :], 1)
        return tf.nn.relu(of_user[:, None, :] + of_product)


def dot(x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """Products of rows: x [B, d] and z [B, N, d] or [N, d] -> f32 [B, N]."""
    if z.shape.rank == 3 and z.shape[1] == 1:  # one product a row: B matrix products of 1 x d by d x 1 would cost more
        return tf.cast(tf.reduce_sum(x[:, None, :] * z, axis=2), tf.float32)
    return tf.cast(tf.matmul(x, z, transpose_b=True) if z.shape.rank == 2 else tf.einsum("bd,bnd->bn", x, z), tf.float32)


def _inverse_norm(rows: tf.Tensor) -> tf.Tensor:
    """1 / |row|, f32 [...] of [..., d]."""
    return tf.math.rsqrt(tf.maximum(tf.reduce_sum(tf.square(tf.cast(rows, tf.float32)), axis=-1), 1e-12))
