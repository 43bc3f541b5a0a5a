"""Matrix factorisation.

    dot:     y^(u, p) = mu + b_u + b_p + <x_u, z_p>
    cosine:  y^(u, p) = mu + b_u + b_p + w cos(x_u, z_p) + c

x [U, d] and z [P, d] are the factors; without biases mu + b_u + b_p falls away. The cosine without biases is the reference system's MF.
Source: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009.
"""

import tensorflow as tf

from tfrec.models.base import Batch, Recommender
from tfrec.models.layers import Embedding, Products, cosine, dot


class MatrixFactorization(Recommender):
    """mean: where mu starts, the mean of the training targets (0 for logits)."""

    def __init__(
        self, num_users: int, num_products: int, dim: int = 50, mean: float = 0.0, similarity: str = "dot", biases: bool = True
    ) -> None:
        super().__init__(name="mf")
        widths = {"factors": dim} | ({"bias": 1} if biases else {})
        self.user, self.product = Embedding(num_users, widths), Embedding(num_products, widths)
        start = tf.keras.initializers.Constant(mean)
        self.mean = self.add_weight(shape=(), initializer=start, name="mean", autocast=False) if biases else None
        self.similarity, self.head = similarity, None
        if similarity == "cosine":
            self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
            self.head.build((None, 1))

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        user, product = self.user(batch["user"]), self.product(products)
        similarity = cosine if self.similarity == "cosine" else dot
        score = similarity(user["factors"], product["factors"])
        if self.head is not None:
            score = tf.squeeze(self.head(tf.expand_dims(score, -1)), -1)
        return score if self.mean is None else score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
