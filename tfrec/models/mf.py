"""Matrix factorisation.

    dot:     y^(u, p) = mu + b_u + b_p + <x_u, z_p>
    cosine:  y^(u, p) = mu + b_u + b_p + w cos(x_u, z_p) + c

x [U, d] and z [P, d] are the factors; without biases mu + b_u + b_p falls away. The cosine without
biases is the reference system's MF.

--implicit_factors=user,product puts x'_u and z'_p in place of x_u and z_p (either alone, too):

    x'_u = x_u + sum_{j in R(u)} y_j / sqrt|R(u)|      R(u): products that u has rated
    z'_p = z_p + sum_{v in R(p)} q_v / sqrt|R(p)|      R(p): users who have rated p

R is what the other training rows say, at most 100 of them for each u and p. When training has
ended, x and z take the sums in. Sources: Koren, Bell and Volinsky, "Matrix Factorization Techniques
for Recommender Systems", 2009; Koren, "Factorization Meets the Neighborhood", 2008 (SVD++ is
--implicit_factors=user).
"""

import numpy as np
import tensorflow as tf

from tfrec.layers import Embedding, ImplicitFactors, Products, cosine, dot
from tfrec.models.base import Batch, Recommender


class MatrixFactorization(Recommender):
    """mean.

    Where mu starts, the mean of the training targets (0 for logits). train: of the training rows
    user, product int [n].
    """

    def __init__(
        self,
        num_users: int,
        num_products: int,
        dim: int = 50,
        mean: float = 0.0,
        similarity: str = "dot",
        biases: bool = True,
        partners: tuple[str, ...] = (),
        train: dict[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(name="mf")
        widths = {"factors": dim} | ({"bias": 1} if biases else {})
        self.user, self.product = Embedding(num_users, widths), Embedding(num_products, widths)
        self.user_history = self.product_history = None
        if train and "user" in partners:
            self.user_history = ImplicitFactors(
                "user", train["user"], train["product"], num_users, num_products, dim
            )
        if train and "product" in partners:
            self.product_history = ImplicitFactors(
                "product", train["product"], train["user"], num_products, num_users, dim
            )
        start = tf.keras.initializers.Constant(mean)
        self.mean = (
            self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
            if biases
            else None
        )
        self.similarity, self.head = similarity, None
        if similarity == "cosine":
            self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
            self.head.build((None, 1))

    def call(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """One score a row, f32 [B]; in training R(u) is without p, R(p) without u."""
        return tf.squeeze(self.score(batch, tf.expand_dims(batch["product"], 1), training), 1)

    def score_candidates(
        self, batch: Batch, products: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        return self.score(batch, products, training)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        user, product = self.user(batch["user"]), self.product(products)
        x, z = user["factors"], product["factors"]
        if self.user_history:
            x += self.user_history(batch["user"], batch["product"] if training else None)
        if self.product_history:
            z += self.product_history(
                products, tf.expand_dims(batch["user"], 1) if training else None
            )
        score = cosine(x, z) if self.similarity == "cosine" else dot(x, z)
        if self.head is not None:
            score = tf.squeeze(self.head(tf.expand_dims(score, -1)), -1)
        return (
            score
            if self.mean is None
            else score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
        )

    def finalize(self) -> None:
        if self.user_history:
            self.user_history.finalize(self.user, "factors")
        if self.product_history:
            self.product_history.finalize(self.product, "factors")
