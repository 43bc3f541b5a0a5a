"""Neural collaborative filtering: a GMF tower beside an MLP, NeuMF; and the reference system's
kind, with a cosine for the GMF.

    reference:  y^(u, p) = w_1 cos(x_u, z_p) + <w_2, h_1> + c        (+ mu + b_u + b_p)
    NeuMF:      y^(u, p) = <w_1, x_u * z_p> + <w_2, h_n> + c         (+ mu + b_u + b_p)
    h_1 = relu(K_1 [x'_u, z'_p] + k_1)      h_i = relu(K_i h_(i-1) + k_i)

The GMF's x and z are gmf_dim wide; the h are as wide as mlp_layers say, or one layer of d/2.

With --nocosine the reference's kind is the MLP alone. --pretrained starts NeuMF at (y^_gmf +
y^_mlp) / 2 of two runs: the embeddings and hidden layers are theirs, the biases the mean of theirs,
w_1 = 1/2 and w_2, c half of the MLP's (section 3.4.1 of the paper).

The towers have embeddings of their own; the part in brackets is there with biases. As <w_1, x * z>
= <w_1 x, z>, every product is scored by one matrix product, and the first layer is split in a
user's and a product's part (SplitDense); only the layers after it see each pair. Sources: the
reference system (README); He et al., "Neural Collaborative Filtering", 2017.
"""

import itertools

import numpy as np
import tensorflow as tf

from tfrec.layers import Embedding, Products, SplitDense, cosine, dot
from tfrec.models.base import Batch, Recommender


class NeuralCF(Recommender):
    """dim: width of the MLP's embeddings, and of the cosine's.

    mean: where mu starts, the mean of the training targets (0 for logits). gmf_dim: width of the
    GMF tower; 0: the cosine in its place. mlp_layers: widths of the hidden layers; none: one of dim
    / 2. cosine: without a GMF tower, is its cosine there?
    """

    def __init__(
        self,
        num_users: int,
        num_products: int,
        dim: int = 50,
        mean: float = 0.0,
        biases: bool = True,
        gmf_dim: int = 0,
        mlp_layers: tuple[int, ...] = (),
        cosine: bool = True,
    ) -> None:
        super().__init__(name="ncf")
        widths = {"gmf": gmf_dim} if gmf_dim else {"cosine": dim} if cosine else {}
        widths |= {"mlp": dim} | ({"bias": 1} if biases else {})
        self.user, self.product = Embedding(num_users, widths), Embedding(num_products, widths)
        start = tf.keras.initializers.Constant(mean)
        self.mean = (
            self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
            if biases
            else None
        )
        layers = mlp_layers or (max(dim // 2, 1),)
        self.mlp = SplitDense(dim, layers[0], name="mlp")
        self.deeper = [
            f"mlp_{number}" for number in range(2, len(layers) + 1)
        ]  # a list of layers would be lost in a checkpoint
        for name, (before, after) in zip(self.deeper, itertools.pairwise(layers)):
            layer = tf.keras.layers.Dense(after, "relu", name=name)
            layer.build((None, before))
            setattr(self, name, layer)
        self.matched = gmf_dim or int(cosine)  # columns of the head that the first tower has
        self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
        self.head.build((None, self.matched + layers[-1]))
        self.floats_per_score = 1 + sum(layers)

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        user, product = self.user(batch["user"]), self.product(products)
        kernel, bias = (
            tf.cast(weight, tf.float32) for weight in (self.head.kernel, self.head.bias)
        )  # in `call` Keras casts them
        of_match, of_mlp = kernel[: self.matched, 0], kernel[self.matched :, 0]
        hidden = self.mlp(user["mlp"], product["mlp"])
        for name in self.deeper:
            hidden = getattr(self, name)(hidden)
        score = tf.tensordot(tf.cast(hidden, tf.float32), of_mlp, 1) + bias
        if "gmf" in user:
            score += dot(tf.cast(of_match, user["gmf"].dtype) * user["gmf"], product["gmf"])
        elif "cosine" in user:
            score += of_match * cosine(user["cosine"], product["cosine"])
        return (
            score
            if self.mean is None
            else score + self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
        )

    def start_from(self, gmf: dict[str, np.ndarray], mlp: dict[str, np.ndarray]) -> None:
        """Takes the weights, by path, of a MatrixFactorization as wide as the GMF tower, and of an
        MLP alone; each counts for a half.
        """
        mine = self.named_weights()
        for path, value in mlp.items():
            if path.startswith("mlp"):
                mine[path].assign(value)
        for side in ("user/table", "product/table"):
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
