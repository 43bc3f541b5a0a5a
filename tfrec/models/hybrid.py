"""The hybrid: a sum of the terms that are named.

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

similarity=cosine puts w_0 cos(., .) in place of that one product, whose vectors then have one
length. In training id_dropout leaves the x_u and z_p of some users and products out.

f_p [F] are the product's features, g_u [G] the user's, c [C] the context; L f_p has F numbers, 16
where F is above 64. w_1 .. w_4 and a constant are one Dense(1) over the concatenation of its terms,
so the reference system's hybrid (docs/reference.md) is terms=cosine,mlp,features,context. Sources:
Rendle, "Factorization Machines", 2010 (feature_factors); Koren, "Factorization Meets the
Neighborhood", 2008 (user_history, user_day_bias); Volkovs, Yu and Poutanen, "DropoutNet", 2017
(id_dropout).
"""

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError
from tfrec.layers import (
    Embedding,
    FeatureEmbedding,
    FeatureTable,
    ImplicitFactors,
    Parts,
    Products,
    SplitDense,
    UserDayBias,
    cosine,
    dot,
)
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting

TERMS = (
    "bias",
    "user_day_bias",
    "dot",
    "feature_factors",
    "context_factors",
    "user_history",
    "product_history",
    "cosine",
    "mlp",
    "features",
    "context",
)
DEFAULT = ("bias", "dot", "feature_factors", "features", "context")
HIDDEN = 16  # numbers that L f_p has where there are many features
WITH_DOT = {"dot", "context_factors", "user_history", "product_history"}


class Hybrid(Recommender):
    """Scores in target units (rating) or logits (ranking).

    features and user_features are constant weights.
    """

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = setting(50, "width of the user and product embeddings", low=1)
        similarity: str = setting(
            "auto",
            "how the two vectors of dot and what joins it meet; auto: dot for ratings, cosine for "
            "ranking",
            ("auto", "dot", "cosine"),
            by_task={"rating": "dot", "ranking": "cosine"},
        )
        id_dropout: float | None = setting(
            None,
            "share of the users and products whose own factors a training step leaves out, so that "
            "their features learn to stand for them; unset: 0 for ratings, 0.2 for ranking",
            low=0.0,
            high=0.9,
            by_task={"rating": 0.0, "ranking": 0.2},
        )
        terms: tuple[str, ...] = setting(
            (),
            f"the terms that are summed; empty: {', '.join(DEFAULT)}, where the data have them",
            TERMS,
        )

    def __init__(self, train: Interactions, settings: Settings) -> None:
        super().__init__(name="hybrid")
        catalog, dim = train.catalog, settings.embedding_dim
        self.num_products = train.num_products
        num_features, num_context = catalog.features.shape[1], len(catalog.context_names)
        num_user_features = catalog.user_features.shape[1]
        self.terms = terms = chosen_terms(train, settings.terms)
        self.uses_product_features = num_features > 0 and not {
            "feature_factors",
            "features",
        }.isdisjoint(terms)
        self.uses_user_features = num_user_features > 0 and "feature_factors" in terms
        if self.uses_product_features:
            self.features = FeatureTable(catalog.features, "product")
        if self.uses_user_features:
            self.user_features = FeatureTable(catalog.user_features, "user")
        of_users = "feature_factors" in terms and not num_features  # <W^T g_u, z_p> alone is left
        self.has_dot = of_users or not WITH_DOT.isdisjoint(terms)
        self.has_vectors = self.has_dot or "feature_factors" in terms
        widths = {"bias": 1, "cosine": dim, "mlp": dim}
        of_user = {part: width for part, width in widths.items() if part in terms}
        of_product = of_user | ({"dot": dim} if self.has_dot else {})
        of_user |= {"dot": dim} if self.has_vectors else {}
        self.users = Embedding(train.num_users, of_user, "user") if of_user else None
        self.products = Embedding(train.num_products, of_product, "product") if of_product else None
        # where features join the vectors that ids make
        dropped = settings.id_dropout if "feature_factors" in terms and self.has_dot else 0
        self.id_dropout: Any = tf.keras.layers.Dropout(dropped) if dropped else None
        self.scale = None
        if settings.similarity == "cosine" and self.has_vectors:
            self.scale = self.add_weight(shape=(), initializer="ones", name="scale", autocast=False)
        if "bias" in terms:
            start = tf.keras.initializers.Constant(train.target_mean)
            self.mean = self.add_weight(shape=(), initializer=start, name="mean", autocast=False)
        hidden = 0
        if self.uses_product_features:
            hidden = num_features if self.features.narrow else min(num_features, HIDDEN)
            self.of_features = self._features_embedding(dim, hidden)
        if self.uses_user_features:
            self.user_feature_factors = FeatureEmbedding(self.user_features, dim)
        if "context_factors" in terms:
            self.context_factors = self._factors(num_context, dim, "context_factors")
        self.user_day_bias = UserDayBias(train) if "user_day_bias" in terms else None
        self.user_history = self.product_history = None
        if "user_history" in terms:
            self.user_history = ImplicitFactors(train, "user", dim)
        if "product_history" in terms:
            self.product_history = ImplicitFactors(train, "product", dim)
            self.counts_product_history = True
        if "mlp" in terms:
            self.mlp = SplitDense(dim, name="mlp")
            self.floats_per_score = self.mlp.hidden.units
        if "context" in terms:
            self.of_context = tf.keras.layers.Dense(num_context, "relu", name="of_context")
            self.of_context.build((None, num_context))
        self.batch_columns = tuple(self._columns_read())
        self._make_head(dim, hidden, num_context)

    def equations(self) -> list[str]:
        return [line for line in super().equations() if line.split()[0] in self.terms]

    def _features_embedding(self, dim: int, hidden: int) -> FeatureEmbedding:
        """Returns the rows of V and L side by side; L starts as a Dense layer does (Glorot)."""
        widths = {"feature_factors": dim, "features": hidden}
        widths = {part: width for part, width in widths.items() if part in self.terms}
        limits = {"features": (6 / (self.features.width + hidden)) ** 0.5}
        limits = {part: limit for part, limit in limits.items() if part in widths}
        return FeatureEmbedding(self.features, widths, limits, biased=next(iter(limits), ""))

    def _factors(self, rows: int, dim: int, name: str) -> tf.keras.Variable:
        start = tf.keras.initializers.RandomUniform()
        setattr(self, f"{name}_initializer", start)
        return self.add_weight(shape=(rows, dim), initializer=start, name=name)

    def _columns_read(self) -> list[str]:
        columns = {
            "day": self.user_day_bias is not None,
            "context": not {"context", "context_factors"}.isdisjoint(self.terms),
        }
        return [name for name, read in columns.items() if read]

    def _make_head(self, dim: int, hidden: int, num_context: int) -> None:
        """The Dense(1) over the concatenation of the terms that have a weight w."""
        widths = {
            "cosine": 1,
            "mlp": max(dim // 2, 1),
            "features": hidden,
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

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        """As Recommender.score; in training R(u) is without p, R(p) without u."""
        features = self.of_features(products) if self.uses_product_features else {}
        user = self.users(batch["user"]) if self.users else {}
        product = self.products(products) if self.products else {}
        if self.id_dropout and training:
            user, product = self._without_some(user), self._without_some(product)
        if self.user_history:
            user["dot"] += self.user_history(batch["user"], batch["product"] if training else None)
        if self.product_history:
            without = tf.expand_dims(batch["user"], 1) if training else None
            product["dot"] += self.product_history(products, without)
        count = self.num_products if products is None else tf.shape(products)[-1]
        score = tf.zeros([tf.shape(batch["user"])[0], count])
        if "bias" in self.terms:
            score += self.mean + tf.expand_dims(user["bias"], 1) + product["bias"]
        if self.user_day_bias and "day" in batch:
            score += tf.expand_dims(self.user_day_bias(batch["user"], batch["day"]), 1)
        if self.has_vectors:
            x, z = self._user_vectors(user, batch), self._product_vectors(product, features)
            score += dot(x, z) if self.scale is None else self.scale * cosine(x, z)
        if "cosine" in self.terms:
            score += self._weigh(
                "cosine", tf.expand_dims(cosine(user["cosine"], product["cosine"]), -1)
            )
        if "mlp" in self.terms:
            score += self._weigh("mlp", self.mlp(user["mlp"], product["mlp"]))
        if "features" in self.terms:
            score += self._weigh("features", tf.nn.relu(features["features"]))
        if "context" in self.terms:
            score += self._weigh("context", tf.expand_dims(self.of_context(batch["context"]), 1))
        return score + tf.cast(self.head.bias, tf.float32) if self.columns else score

    def _without_some(self, parts: Parts) -> Parts:
        """Returns the parts of rows with the factors of some owners left out."""
        if "dot" not in parts:
            return parts
        kept = self.id_dropout(tf.ones(tf.shape(parts["dot"])[:-1]), training=True)
        return parts | {"dot": parts["dot"] * self._cast(kept[..., None])}

    def product_embeddings(self) -> tf.Tensor | None:
        """Returns what x_u meets, the sum of z_p and so on, where there is any, f32 [P, d]."""
        if not self.has_vectors:
            return super().product_embeddings()
        product = self.products(None) if self.products else {}
        if self.product_history:
            product["dot"] += self.product_history(None)
        features = self.of_features(None) if self.uses_product_features else {}
        return tf.cast(self._product_vectors(product, features), tf.float32)

    def finalize(self) -> None:
        if self.users and self.user_history:
            self.user_history.finalize(self.users, "dot")
        if self.products and self.product_history:
            self.product_history.finalize(self.products, "dot")

    def _user_vectors(self, user: Parts, batch: Batch) -> tf.Tensor:
        """Returns the users' sides of the products of two vectors, f32 [B, d]."""
        vectors = user["dot"]
        if "context_factors" in self.terms:
            vectors += tf.matmul(self._cast(batch["context"]), self._cast(self.context_factors))
        if self.uses_user_features:
            vectors += self.user_feature_factors(batch["user"])
        return vectors

    def _product_vectors(self, product: Parts, features: Parts) -> tf.Tensor:
        """[N, d] or [B, N, d]."""
        vectors = product["dot"] if self.has_dot else 0.0
        return vectors + features.get("feature_factors", 0.0)

    def _cast(self, values: tf.Tensor | tf.Variable) -> tf.Tensor:
        """To the type of computation."""
        return tf.cast(values, self.compute_dtype)

    def _weigh(self, term: str, values: tf.Tensor) -> tf.Tensor:
        """Returns the term's share of the Dense(1): [..., width] -> f32 [...]."""
        begin, end = self.columns[term]
        return tf.tensordot(
            tf.cast(values, tf.float32), tf.cast(self.head.kernel[begin:end, 0], tf.float32), 1
        )


def chosen_terms(train: Interactions, terms: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the terms; of the default ones those whose data there are.

    Raises:
        UsageError: A term was asked for, and the data lack what it is made of.
    """
    catalog = train.catalog
    features = catalog.features.shape[1] > 0
    context, timed = len(catalog.context_names) > 0, train.timed
    lacking = {
        "feature_factors": "" if features or catalog.user_features.shape[1] else "features",
        "features": "" if features else "product features",
        "context": "" if context else "timestamps, so there is no context",
        "context_factors": "" if context else "timestamps, so there is no context",
        "user_day_bias": "" if timed else "timestamps",
    }
    if not terms:
        return tuple(term for term in DEFAULT if not lacking.get(term))
    for term in terms:
        if lacking.get(term):
            raise UsageError(f"terms: {term}: the data have no {lacking[term]}. Leave it out.")
    return terms
