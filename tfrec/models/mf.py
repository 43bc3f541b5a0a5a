"""Matrix factorization.

    dot:     y^(u, p) = mu + b_u + b_p + <x_u, z_p>
    cosine:  y^(u, p) = mu + b_u + b_p + w cos(x_u, z_p) + c

x [U, d] and z [P, d] are the factors; without biases mu + b_u + b_p falls away. The cosine without
biases is the reference system's MF.

implicit_factors=user,product puts x'_u and z'_p in place of x_u and z_p (either alone, too):

    x'_u = x_u + sum_{j in R(u)} y_j / sqrt|R(u)|      R(u): products that u has rated
    z'_p = z_p + sum_{v in R(p)} q_v / sqrt|R(p)|      R(p): users who have rated p

R is what the other training rows say, at most 100 of them for each u and p. When training has
ended, x and z take the sums in. Sources: Koren, Bell and Volinsky, "Matrix Factorization Techniques
for Recommender Systems", 2009; Koren, "Factorization Meets the Neighborhood", 2008 (SVD++ is
implicit_factors=user).
"""

from dataclasses import dataclass

import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.layers import Embedding, ImplicitFactors, Products, cosine, dot
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting


class MatrixFactorization(Recommender):
    """Scores in target units (rating) or logits (ranking)."""

    batch_columns = ()

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = setting(50, "width of the user and product embeddings", low=1)
        similarity: str = setting(
            "auto",
            "how the embeddings meet; auto: dot for ratings, cosine for ranking",
            ("auto", "dot", "cosine"),
            by_task={"rating": "dot", "ranking": "cosine"},
        )
        implicit_factors: tuple[str, ...] = setting(
            (),
            "add SVD++ implicit factors to users' factors (of the products that they have rated), "
            "to products' (of the users who have rated them)",
            ("user", "product"),
        )
        biases: bool = setting(True, "add the mean and a bias for each user and product")

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="mf")
        dim, biases = settings.embedding_dim, settings.biases
        widths = {"factors": dim} | ({"bias": 1} if biases else {})
        self.users = Embedding(train.num_users, widths, "user")
        self.products = Embedding(train.num_products, widths, "product")
        self.user_history = self.product_history = None
        if "user" in settings.implicit_factors:
            self.user_history = ImplicitFactors(train, "user", dim)
        if "product" in settings.implicit_factors:
            self.product_history = ImplicitFactors(train, "product", dim)
            self.counts_product_history = True
        start = tf.keras.initializers.Constant(train.target_mean)
        self.mean = (
            self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
            if biases
            else None
        )
        self.similarity, self.head = settings.similarity, None
        self.implicit = settings.implicit_factors
        if settings.similarity == "cosine":
            self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
            self.head.build((None, 1))

    def equations(self) -> list[str]:
        known = {"user": "x'_u", "product": "z'_p"}
        heads = {f"{self.similarity}:", *(known[side] for side in self.implicit)}
        return [line for line in super().equations() if line.split()[0] in heads]

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        """As Recommender.score; in training R(u) is without p, R(p) without u."""
        user, product = self.users(batch["user"]), self.products(products)
        x, z = user["factors"], product["factors"]
        if self.user_history:
            x += self.user_history(batch["user"], batch["product"] if training else None)
        if self.product_history:
            without = tf.expand_dims(batch["user"], 1) if training else None
            z += self.product_history(products, without)
        score = cosine(x, z) if self.similarity == "cosine" else dot(x, z)
        if self.head is not None:
            score = tf.squeeze(self.head(tf.expand_dims(score, -1)), -1)
        if self.mean is None:
            return score
        return score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]

    def finalize(self) -> None:
        if self.user_history:
            self.user_history.finalize(self.users, "factors")
        if self.product_history:
            self.product_history.finalize(self.products, "factors")
