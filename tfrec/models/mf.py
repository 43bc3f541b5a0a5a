"""Matrix factorisation.

    dot:     y^(u, p) = mu + b_u + b_p + <x_u, z_p>
    cosine:  y^(u, p) = mu + b_u + b_p + w cos(x_u, z_p) + c

x [U, d] and z [P, d] are the factors; without biases mu + b_u + b_p falls away. The cosine without biases is the reference system's MF.
Source: Koren, Bell and Volinsky, "Matrix Factorization Techniques for Recommender Systems", 2009.
"""

import tensorflow as tf

from tfrec.models.base import Batch, Recommender
from tfrec.models.layers import Biases, Interaction, Products


class MatrixFactorization(Recommender):
    """mean: where mu starts, the mean of the training targets (0 for logits)."""

    def __init__(
        self, num_users: int, num_products: int, dim: int = 50, mean: float = 0.0, similarity: str = "dot", biases: bool = True
    ) -> None:
        super().__init__(name="mf")
        self.interaction = Interaction(num_users, num_products, dim, similarity, name="interaction")
        self.biases = Biases(num_users, num_products, mean, name="biases") if biases else None
        self.head = None
        if similarity == "cosine":
            self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
            self.head.build((None, 1))

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        score = self.interaction(batch["user"], products)
        if self.head is not None:
            score = self.head(score[..., None])[..., 0]
        return score if self.biases is None else score + self.biases(batch["user"], products)
