"""Neural collaborative filtering, the reference system's kind.

    A = cos(x_u, z_p)      B = relu(K [x'_u, z'_p] + b), d/2 wide      y^(u, p) = <w, [A, B]> + c  (+ mu + b_u + b_p)

A and B have embeddings of their own; the part in brackets is there with biases.
Source: the reference system (README), after He et al., "Neural Collaborative Filtering", 2017 (with a cosine for its GMF).
"""

import tensorflow as tf

from tfrec.models.base import Batch, Recommender
from tfrec.models.layers import Biases, Interaction, PairMLP, Products


class NeuralCF(Recommender):
    """mean: where mu starts, the mean of the training targets (0 for logits)."""

    def __init__(self, num_users: int, num_products: int, dim: int = 50, mean: float = 0.0, biases: bool = True) -> None:
        super().__init__(name="ncf")
        self.cosine = Interaction(num_users, num_products, dim, "cosine", name="cosine")
        self.mlp = PairMLP(num_users, num_products, dim, name="mlp")
        self.biases = Biases(num_users, num_products, mean, name="biases") if biases else None
        self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
        self.width = 1 + self.mlp.hidden.units
        self.head.build((None, self.width))

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        cosine = self.cosine(batch["user"], products)[..., None]
        hidden = tf.cast(self.mlp(batch["user"], products), tf.float32)
        score = self.head(tf.concat([cosine, hidden], axis=-1))[..., 0]
        return score if self.biases is None else score + self.biases(batch["user"], products)
