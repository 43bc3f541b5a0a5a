"""The hybrid: a sum of the terms that --terms names.

    bias             mu + b_u + b_p
    user_day_bias    b_{u, t}                                   t: the day
    dot              <x_u, z_p>
    feature_factors  <x_u + W^T g_u, V^T f_p> + <W^T g_u, z_p>  f_p, g_u: features
    context_factors  <K^T c, z_p + V^T f_p>                     c: the context
    user_history     <sum_{j in R(u)} y_j / sqrt|R(u)|, z_p>    R(u): products that u has rated
    product_history  <x_u, sum_{v in R(p)} q_v / sqrt|R(p)|>    R(p): users who have rated p
    cosine           w_1 cos(x'_u, z'_p)
    mlp              <w_2, relu(K [x''_u, z''_p] + b)>
    features         <w_3, relu(L f_p + l)>
    context          <w_4, relu(M c + m)>

dot, feature_factors, context_factors, user_history and product_history make one product of two
vectors, each the sum of its parts; with one of the last three, dot is among them. The histories are
implicit factors (SVD++): R is what the other training rows say, at most 100 of them for each u and
p; when training has ended, x and z take these sums in. b_{u, t} is 0 on a day without training rows
of u, and where a score is asked for without a time.

f_p [F] are the product's features, g_u [G] the user's, c [C] the context. w_1 .. w_4 and a constant
are one Dense(1) over the concatenation of its terms, so the reference system's hybrid (README) is
--terms=cosine,mlp,features,context. Sources: Rendle, "Factorization Machines", 2010
(feature_factors); Koren,
"Factorization Meets the Neighborhood", 2008 (user_history,
user_day_bias).
"""

import numpy as np
import tensorflow as tf

from tfrec.errors import UsageError
from tfrec.layers import (
    Embedding,
    ImplicitFactors,
    Parts,
    Products,
    SplitDense,
    UserDayBias,
    cosine,
    dot,
)
from tfrec.models.base import Batch, Recommender


class Hybrid(Recommender):
    """features: f32 [P, F], kept as a weight; mean: where mu starts, the mean of the training
    targets (0 for logits).

    train: int [n] of the training rows: user, product, and day where there are timestamps;
    user_day_bias, user_history and product_history need them.
    """

    def __init__(
        self,
        num_users: int,
        features: np.ndarray,
        num_context: int,
        num_user_features: int = 0,
        dim: int = 50,
        mean: float = 0.0,
        terms: tuple[str, ...] = ("bias", "dot", "feature_factors", "features", "context"),
        train: dict[str, np.ndarray] | None = None,
    ) -> None:
        super().__init__(name="hybrid")
        num_products, num_features = features.shape
        self.features = self.add_weight(
            shape=features.shape,
            initializer=tf.keras.initializers.Constant(features),
            trainable=False,
            name="features",
            autocast=False,
        )
        train = train or {}
        known = "user" in train
        # data without time have no context
        have = {
            "context": num_context,
            "context_factors": num_context,
            "features": num_features,
            "user_day_bias": "day" in train,
            "user_history": known,
            "product_history": known,
        }
        self.terms = tuple(term for term in terms if have.get(term, 1))
        if not self.terms:
            raise UsageError(
                f"--terms={','.join(terms)}: the data have no timestamps (no product features), "
                "so nothing is left. Add a term."
            )
        self.has_dot = not {"dot", "context_factors", "user_history", "product_history"}.isdisjoint(
            self.terms
        )
        self.has_vectors = self.has_dot or "feature_factors" in terms
        of_user = {
            part: width
            for part, width in (("bias", 1), ("cosine", dim), ("mlp", dim))
            if part in terms
        }
        of_product = of_user | ({"dot": dim} if self.has_dot else {})
        of_user |= {"dot": dim} if self.has_vectors else {}
        self.user = Embedding(num_users, of_user) if of_user else None
        self.product = Embedding(num_products, of_product) if of_product else None
        if "bias" in terms:
            start = tf.keras.initializers.Constant(mean)
            self.mean = self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
        if "feature_factors" in terms:
            self.feature_factors = self.add_weight(
                shape=(num_features, dim), initializer="uniform", name="feature_factors"
            )
            if num_user_features:
                self.attribute_factors = self.add_weight(
                    shape=(num_user_features, dim), initializer="uniform", name="attribute_factors"
                )
        if "context_factors" in self.terms:
            self.context_factors = self.add_weight(
                shape=(num_context, dim), initializer="uniform", name="context_factors"
            )
        self.user_day_bias = (
            UserDayBias(train["user"], train["day"]) if "user_day_bias" in self.terms else None
        )
        self.user_history = self.product_history = None
        if "user_history" in self.terms:
            self.user_history = ImplicitFactors(
                "user", train["user"], train["product"], num_users, num_products, dim
            )
        if "product_history" in self.terms:
            self.product_history = ImplicitFactors(
                "product", train["product"], train["user"], num_products, num_users, dim
            )
        if "mlp" in terms:
            self.mlp = SplitDense(dim, name="mlp")
            self.floats_per_score = self.mlp.hidden.units
        if "features" in self.terms:
            self.of_features = tf.keras.layers.Dense(num_features, "relu", name="of_features")
            self.of_features.build((None, num_features))
        if "context" in self.terms:
            self.of_context = tf.keras.layers.Dense(num_context, "relu", name="of_context")
            self.of_context.build((None, num_context))
        self.uses_product_features = num_features > 0 and (
            "feature_factors" in terms or "features" in terms
        )
        self.uses_user_features = num_user_features > 0 and "feature_factors" in terms
        widths = {
            "cosine": 1,
            "mlp": max(dim // 2, 1),
            "features": num_features,
            "context": num_context,
        }
        self.columns, end = {}, 0  # which columns of the concatenation are a term's
        for term in self.terms:
            if term in widths:
                self.columns[term] = (end, end + widths[term])
                end += widths[term]
        if end:
            self.head = tf.keras.layers.Dense(1, name="head", dtype="float32")
            self.head.build((None, end))

    def call(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """One score a row, f32 [B].

        The product's features are those of the batch. In training R(u) is without p, R(p) without
        u.
        """
        products, features = (
            tf.expand_dims(batch["product"], 1),
            tf.expand_dims(batch["features"], 1),
        )
        return tf.squeeze(self.score(batch, products, features, training), 1)

    def score_candidates(
        self, batch: Batch, products: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        return self.score(batch, products, training=training)

    def score(
        self,
        batch: Batch,
        products: Products,
        features: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        if features is None:
            table = self.features.value
            features = (
                tf.convert_to_tensor(table)
                if products is None
                else tf.nn.embedding_lookup(table, products)
            )
        features = self._cast(features)  # [N, F] or [B, N, F]
        user = self.user(batch["user"]) if self.user else {}
        product = self.product(products) if self.product else {}
        if self.user_history:
            user["dot"] += self.user_history(batch["user"], batch["product"] if training else None)
        if self.product_history:
            product["dot"] += self.product_history(
                products, tf.expand_dims(batch["user"], 1) if training else None
            )
        score = tf.zeros([tf.shape(batch["user"])[0], tf.shape(features)[-2]])
        if "bias" in self.terms:
            score += self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
        if self.user_day_bias and "day" in batch:
            score += tf.expand_dims(self.user_day_bias(batch["user"], batch["day"]), 1)
        if self.has_vectors:
            score += dot(self._user_vectors(user, batch), self._product_vectors(product, features))
        if "cosine" in self.terms:
            score += self._weigh(
                "cosine", tf.expand_dims(cosine(user["cosine"], product["cosine"]), -1)
            )
        if "mlp" in self.terms:
            score += self._weigh("mlp", self.mlp(user["mlp"], product["mlp"]))
        if "features" in self.terms:
            score += self._weigh("features", self.of_features(features))
        if "context" in self.terms:
            score += self._weigh("context", tf.expand_dims(self.of_context(batch["context"]), 1))
        return score + tf.cast(self.head.bias, tf.float32) if self.columns else score

    def product_embeddings(self) -> tf.Tensor | None:
        """What x_u meets, the sum of z_p and so on, where there is any, f32 [P, d]."""
        if not self.has_vectors:
            return super().product_embeddings()
        product = self.product(None) if self.product else {}
        if self.product_history:
            product["dot"] += self.product_history(None)
        return tf.cast(
            self._product_vectors(product, self._cast(tf.convert_to_tensor(self.features.value))),
            tf.float32,
        )

    def finalize(self) -> None:
        if self.user and self.user_history:
            self.user_history.finalize(self.user, "dot")
        if self.product and self.product_history:
            self.product_history.finalize(self.product, "dot")

    def _user_vectors(self, user: Parts, batch: Batch) -> tf.Tensor:
        """[B, d]."""
        vectors = user["dot"]
        if "context_factors" in self.terms:
            vectors += tf.matmul(self._cast(batch["context"]), self._cast(self.context_factors))
        if "feature_factors" in self.terms and "user_features" in batch:
            vectors += tf.matmul(
                self._cast(batch["user_features"]), self._cast(self.attribute_factors)
            )
        return vectors

    def _product_vectors(self, product: Parts, features: tf.Tensor) -> tf.Tensor:
        """[N, d] or [B, N, d]."""
        vectors = product["dot"] if self.has_dot else 0.0
        return (
            vectors + tf.tensordot(features, self._cast(self.feature_factors), 1)
            if "feature_factors" in self.terms
            else vectors
        )

    def _cast(self, values: tf.Tensor | tf.Variable) -> tf.Tensor:
        """To the type of computation; Keras does so by itself in `call`, not in other methods."""
        return tf.cast(values, self.compute_dtype)

    def _weigh(self, term: str, values: tf.Tensor) -> tf.Tensor:
        """The term's share of the Dense(1): [..., width] -> f32 [...]."""
        begin, end = self.columns[term]
        return tf.tensordot(
            tf.cast(values, tf.float32), tf.cast(self.head.kernel[begin:end, 0], tf.float32), 1
        )
