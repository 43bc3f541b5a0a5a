"""Neural collaborative filtering, the reference system's kind.

    A = cos(x_u, z_p)      B = relu(K [x'_u, z'_p] + b), d/2 wide      y^(u, p) = <w, [A, B]> + c  (+ mu + b_u + b_p)

A and B have embeddings of their own; the part in brackets is there with biases.
Source: the reference system (README), after He et al., "Neural Collaborative Filtering", 2017 (with a cosine for its GMF).
"""

import tensorflow as tf

from tfrec.models.base import Batch, Recommender
from tfrec.models.layers import Embedding, PairMLP, Products, cosine


class NeuralCF(Recommender):
    """mean: where mu starts, the mean of the training targets (0 for logits)."""

    def __init__(self, num_users: int, num_products: int, dim: int = 50, mean: float = 0.0, biases: bool = True) -> None:
        super().__init__(name="ncf")
        widths = {"cosine": dim, "mlp": dim} | ({"bias": 1} if biases else {})
        self.user, self.product = Embedding(num_users, widths), Embedding(num_products, widths)
        start = tf.keras.initializers.Constant(mean)
        self.mean = self.add_weight(shape=(), initializer=start, name="mean", autocast=False) if biases else None
        self.mlp = PairMLP(dim, name="mlp")
        self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
        self.width = 1 + self.mlp.hidden.units
        self.head.build((None, self.width))

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        user, product = self.user(batch["user"]), self.product(products)
        alike = tf.expand_dims(cosine(user["cosine"], product["cosine"]), -1)
        hidden = tf.cast(self.mlp(user["mlp"], product["mlp"]), tf.float32)
        score = tf.squeeze(self.head(tf.concat([alike, hidden], axis=-1)), -1)
        return score if self.mean is None else score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
