"""What answers for users and products without training rows, wherever a model is asked: in
evaluation as in the export.

A model knows nothing of a user or product without training rows, unless it reads their features. In
its place answer, best known first:

    content      the model itself, from the features of a product without training rows
    demographic  what people like the user choose (by attributes in the users table), by the model
                 if it reads attributes
    popularity   of a rating the mean and the bias of the id that is known; of a ranking the number
                 of training rows

A model that answers for new users and products itself (`answers_for_new`) does so in place of the
mean and the bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.models.base import Batch, Recommender
from tfrec.models.demographic import Demographic, known_attributes
from tfrec.models.popularity import Popularity

SOURCES = ("model", "content", "demographic", "popularity")


@dataclass(frozen=True)
class Fallbacks:
    """Fitted models in rating units, and of whom there are training rows.

    bias: What answers for a rating of a new user or product.
    popularity: Of a ranking task.
    demographic_rating, demographic_ranking: None where the data have no attributes of users (and
    the former in a ranking task).
    trained_users, trained_products: bool [U], [P], of whom there are training rows.
    described_users: bool [U], who has an attribute that makes a group.
    """

    task: str
    bias: Recommender
    popularity: Popularity
    demographic_rating: Demographic | None
    demographic_ranking: Demographic | None
    trained_users: tf.Variable
    trained_products: tf.Variable
    described_users: tf.Variable

    def models(self) -> list[Recommender]:
        """Those that there are."""
        every = (self.bias, self.popularity, self.demographic_rating, self.demographic_ranking)
        return [model for model in every if model is not None]

    def has_attributes(self, user: tf.Tensor) -> tf.Tensor:
        """Returns which users int32 [B] (-1: unknown) have attributes, bool [B]."""
        return among(self.described_users, user)

    def score(
        self,
        model: Recommender,
        batch: Batch,
        user: tf.Tensor,
        product: tf.Tensor,
        scores: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what is answered for pairs of user and product int32 [B] (-1: unknown).

        scores: the model's, f32 [B], ratings in the data's unit or what it ranks by.

        Returns:
            The scores with those of the fallbacks, and the source of each, string [B].
        """
        known_user, known_product = (
            among(self.trained_users, user),
            among(self.trained_products, product),
        )
        described = ~known_user & self.has_attributes(user)
        user_by_model = known_user | (described & model.uses_user_features)
        by_model = user_by_model & (known_product | ((product >= 0) & model.uses_product_features))
        guess, source = self._fallback_score(batch, user, product, described & known_product)
        of_model = tf.where(described, "demographic", tf.where(known_product, "model", "content"))
        return tf.where(by_model, scores, guess), tf.where(by_model, of_model, source)

    def rank(
        self,
        model: Recommender,
        batch: Batch,
        user: tf.Tensor,
        scores: tf.Tensor,
        products: tf.Tensor | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns what products are ranked by.

        Args:
            model: A trained model.
            batch: Of the users.
            user: int32 [B]; -1: unknown.
            scores: The model's, f32 [B, N].
            products: int32 [B, N]; None: every product.

        Returns:
            The scores with those of the fallbacks f32 [B, N], the source of each user string [B],
            and whose scores are the model's bool [B].
        """
        known = among(self.trained_users, user)
        described = ~known & self.has_attributes(user)
        by_model = known | (described & model.uses_user_features)

        def with_new_users() -> tuple[tf.Tensor, tf.Tensor]:
            others, source = self.cold_start_scores(batch, described)
            others = others if products is None else tf.gather(others, products, batch_dims=1)
            return tf.where(by_model[:, None], scores, others), tf.where(known, "model", source)

        scores, source = tf.cond(
            tf.reduce_all(known), lambda: (scores, tf.fill(tf.shape(user), "model")), with_new_users
        )
        return scores, source, by_model

    def cold_start_scores(self, batch: Batch, described: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores [B, P] and source [B] for users without rows.

        By the attributes of those who are `described`, which batch has as user or user_features;
        else popularity.
        """
        scores, source = (
            self.by_popularity(tf.shape(described)[0]),
            tf.fill(tf.shape(described), "popularity"),
        )
        if self.demographic_ranking is None:
            return scores, source
        alike = self.demographic_ranking.score_all(batch)
        return tf.where(described[:, None], alike, scores), tf.where(
            described, "demographic", source
        )

    def by_popularity(self, count: tf.Tensor) -> tf.Tensor:
        """Scores of every product for users of whom nothing is known, [count, P]."""
        return tf.tile(self.popularity.products(None)["bias"][None], [count, 1])

    def _fallback_score(
        self, batch: Batch, user: tf.Tensor, product: tf.Tensor, described: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(value, source) [B] of a new user or product.

        A rating, or the log-odds that the product is chosen.
        """
        users, rating = (
            tf.reduce_sum(tf.cast(self.trained_users, tf.float32)),
            self.task == "rating",
        )
        value = (self.bias if rating else self.popularity).of_known(user, product)
        by_model = rating and self.bias.answers_for_new
        source, alike_users = (
            tf.fill(tf.shape(user), "model" if by_model else "popularity"),
            self.demographic_rating if rating else self.demographic_ranking,
        )
        if alike_users is not None:
            at = tf.maximum(product, 0)[:, None]
            alike = tf.cond(
                tf.reduce_any(described),
                lambda: alike_users.score_candidates(batch, at)[:, 0],
                lambda: value,
            )
            value = tf.where(described, alike if rating else alike * users, value)
            source = tf.where(described, "demographic", source)
        return value if rating else tf.math.log((value + 0.5) / (users - value + 0.5)), source


def make(
    model: Recommender, train: Interactions, baselines: Mapping[str, Popularity] | None = None
) -> Fallbacks:
    """Fits the fallbacks of a model to its training rows.

    Args:
        model: A trained one.
        train: The training rows.
        baselines: "bias" and "popularity", fitted to these rows; None: they are fitted here.
    """
    if baselines is None:
        baselines = {
            "bias": Popularity.from_data(train, "rating"),
            "popularity": Popularity.from_data(train, "ranking"),
        }
        for baseline in baselines.values():
            baseline.fit_closed_form(train)
    task, catalog = model.task, train.catalog
    groups = known_attributes(catalog.user_features)
    demographic: dict[str, Demographic] = {}
    for kind in {"ranking", task} if groups.any() else ():
        demographic[kind] = Demographic.from_data(train, kind)
        demographic[kind].fit_closed_form(train)
    users, products = (train.counts(side) > 0 for side in ("user", "product"))
    told = catalog.user_features.rows[groups[catalog.user_features.columns]]
    described = np.bincount(told, minlength=len(users)) > 0
    variables = [tf.Variable(values, trainable=False) for values in (users, products, described)]
    bias = model if model.answers_for_new else baselines["bias"]
    popularity = baselines["popularity"]
    return Fallbacks(
        task, bias, popularity, demographic.get("rating"), demographic.get("ranking"), *variables
    )


def among(trained_ids: tf.Variable, index: tf.Tensor) -> tf.Tensor:
    """bool [...]: is there such an index (not -1), and has it training rows, bool [rows]?"""
    return (index >= 0) & tf.gather(trained_ids, tf.maximum(index, 0))
