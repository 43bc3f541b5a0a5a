"""Neural collaborative filtering: a GMF tower beside an MLP, NeuMF; and the reference system's
kind, with a cosine for the GMF.

    reference:  y^(u, p) = w_1 cos(x_u, z_p) + <w_2, h_1> + c        (+ mu + b_u + b_p)
    NeuMF:      y^(u, p) = <w_1, x_u * z_p> + <w_2, h_n> + c         (+ mu + b_u + b_p)
    h_1 = relu(K_1 [x'_u, z'_p] + k_1)      h_i = relu(K_i h_(i-1) + k_i)

The GMF's x and z are gmf_dim wide; the h are as wide as mlp_layers say, or one layer of d/2, or of
8 for ranking, where each row meets hundreds of products.

In training a share (dropout) of the numbers in x' and z' is left out, and the others grow by as
much: without that the MLP fits who took what by heart, which costs rankings most.

With nocosine the reference's kind is the MLP alone. pretrained starts NeuMF at (y^_gmf +
y^_mlp) / 2 of two runs: the embeddings and hidden layers are theirs, the biases the mean of theirs,
w_1 = 1/2 and w_2, c half of the MLP's (section 3.4.1 of the paper).

The towers have embeddings of their own; the part in brackets is there with biases. As <w_1, x * z>
= <w_1 x, z>, every product is scored by one matrix product, and the first layer is split in a
user's and a product's part (SplitDense); only the layers after it see each pair. Sources: the
reference system (docs/reference.md); He et al., "Neural Collaborative Filtering", 2017; Srivastava
et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError
from tfrec.layers import Embedding, Products, SplitDense, cosine, dot
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting


class NeuralCF(Recommender):
    """Scores in target units (rating) or logits (ranking)."""

    batch_columns = ()

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = setting(
            50, "width of the MLP's embeddings, and of the cosine's", low=1
        )
        biases: bool = setting(True, "add the mean and a bias for each user and product")
        gmf_dim: int = setting(0, "GMF embedding width (NeuMF); 0: a cosine in its place", low=0)
        dropout: float | None = setting(
            None,
            "share of the numbers of the MLP's embeddings that a training step leaves out; unset: "
            "0 for ratings, 0.8 for ranking",
            low=0.0,
            high=0.9,
            by_task={"rating": 0.0, "ranking": 0.8},
        )
        cosine: bool = setting(True, "without a GMF tower, a cosine beside the MLP")
        mlp_layers: tuple[int, ...] = setting(
            (),
            "widths of the MLP's hidden layers; empty: one, for ratings of half the embedding_dim, "
            "for ranking of 8",
            low=1,
            by_task={"ranking": (8,)},
        )

        def __post_init__(self) -> None:
            if self.gmf_dim and not self.cosine:
                raise UsageError("nocosine: with gmf_dim there is none. Leave one of them out.")

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="ncf")
        dim, gmf_dim = settings.embedding_dim, settings.gmf_dim
        widths = {"gmf": gmf_dim} if gmf_dim else {"cosine": dim} if settings.cosine else {}
        widths |= {"mlp": dim} | ({"bias": 1} if settings.biases else {})
        self.users = Embedding(train.num_users, widths, "user")
        self.products = Embedding(train.num_products, widths, "product")
        start = tf.keras.initializers.Constant(train.target_mean)
        self.mean = (
            self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
            if settings.biases
            else None
        )
        self.dropout = tf.keras.layers.Dropout(settings.dropout) if settings.dropout else None
        layers = settings.mlp_layers or (max(dim // 2, 1),)
        self.mlp = SplitDense(dim, layers[0], name="mlp")
        self.deeper = []
        for before, after in itertools.pairwise(layers):
            layer = tf.keras.layers.Dense(after, "relu")
            layer.build((None, before))
            self.deeper.append(layer)
        self.matched = gmf_dim or int(
            settings.cosine
        )  # columns of the head that the first tower has
        self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
        self.head.build((None, self.matched + layers[-1]))
        self.floats_per_score = 1 + sum(layers)

    def equations(self) -> list[str]:
        other = "reference:" if "gmf" in self.users.widths else "NeuMF:"
        return [line for line in super().equations() if not line.startswith(other)]

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        user, product = self.users(batch["user"]), self.products(products)
        kernel, bias = (
            tf.cast(weight, tf.float32) for weight in (self.head.kernel, self.head.bias)
        )  # Keras casts them to the type of computation
        of_match, of_mlp = kernel[: self.matched, 0], kernel[self.matched :, 0]
        x, z = user["mlp"], product["mlp"]
        if self.dropout and training:
            x, z = self.dropout(x, training=True), self.dropout(z, training=True)
        score = self._of_mlp(x, z, of_mlp) + bias
        if "gmf" in user:
            score += dot(tf.cast(of_match, user["gmf"].dtype) * user["gmf"], product["gmf"])
        elif "cosine" in user:
            score += of_match * cosine(user["cosine"], product["cosine"])
        return (
            score
            if self.mean is None
            else score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
        )

    def _of_mlp(self, x: tf.Tensor, z: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        if not self.deeper:
            return self.mlp.weighted(x, z, weights)
        hidden = self.mlp(x, z)
        for layer in self.deeper:
            hidden = layer(hidden)
        return tf.tensordot(tf.cast(hidden, tf.float32), weights, 1)

    def start_from(self, gmf: dict[str, np.ndarray], mlp: dict[str, np.ndarray]) -> None:
        """Takes the weights, by path, of a MatrixFactorization as wide as the GMF tower, and of an
        MLP alone; each counts for a half.
        """
        mine = self.named_weights()
        for path, value in mlp.items():
            if path.startswith(("mlp", "deeper")):
                mine[path].assign(value)
        for side in ("users/table", "products/table"):
            factors, bias_of_gmf = np.split(gmf[side], [self.matched], axis=1)
            embedding, bias_of_mlp = np.split(
                mlp[side], [mlp["mlp/hidden/kernel"].shape[0] // 2], axis=1
            )
            mine[side].assign(
                np.concatenate([factors, embedding, (bias_of_gmf + bias_of_mlp) / 2], axis=1)
            )
        mine["head/kernel"].assign(
            np.concatenate([np.ones((self.matched, 1)), mlp["head/kernel"]]) / 2
        )
        mine["head/bias"].assign(mlp["head/bias"] / 2)
        if self.mean is not None:
            mine["mean"].assign((gmf["mean"] + mlp["mean"]) / 2)
