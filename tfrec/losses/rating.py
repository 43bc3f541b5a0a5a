"""Losses of the rating task: an error of each score."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Columns, Interactions
from tfrec.data.targets import SCALINGS, fit
from tfrec.errors import UsageError
from tfrec.losses.base import Loss
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting

MOST_LEVELS = 100  # of ratings, for Ordinal
ENDLESS = 1e9  # a cut-point beyond all scores; inf would have no gradient


@dataclass(frozen=True)
class RatingSettings:
    """What every loss of the rating task has."""

    target_scaling: str = setting(
        "standard",
        "scale of the training targets: mean 0 and deviation 1, the ratings as they are, or "
        "min-max to 0.5..1",
        SCALINGS,
    )


class RatingLoss(Loss):
    """The base of losses of a score and a rating; a subclass writes `from_scores`."""

    task = "rating"
    Settings: ClassVar[type] = RatingSettings

    def prepare(self, train: Interactions) -> None:
        """Fits the scaling of the targets to the training ratings."""
        self.scaling = fit(self.settings.target_scaling, train.stats)

    def from_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each score.

        Args:
            scores: f32 [...].
            y: Targets, scaled as `target_scaling` says, f32 [...].

        Returns:
            f32 [...].
        """
        raise NotImplementedError

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        return self.from_scores(model(batch, training=True), y)

    def per_list(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss f32 [B, L] of products int32 [B, L] with targets y f32 [B, L]."""
        return self.from_scores(model.score_candidates(batch, products), y)


class SquaredError(RatingLoss):
    """The squared error, (y^ - y)^2."""

    def from_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.square(scores - y)


class AbsoluteError(RatingLoss):
    """The absolute error, |y^ - y|."""

    def from_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.abs(scores - y)


class Huber(RatingLoss):
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = y^ - y."""

    def from_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        error = tf.abs(scores - y)
        return tf.where(error <= 1, tf.square(error) / 2, error - 0.5)


@dataclass(frozen=True)
class OrdinalSettings(RatingSettings):
    """Settings of Ordinal."""

    def __post_init__(self) -> None:
        if self.target_scaling == "product_minmax":
            raise UsageError(
                "loss=ordinal needs the same levels for all products: leave target_scaling at "
                "standard."
            )


class Ordinal(RatingLoss):
    """Cumulative logit: -log P(y = v_k), where P(y <= v_k) = sigmoid(c_k - s).

    v_1 < .. < v_K are the levels of the training targets. The cut-points c_1 < .. < c_{K-1} are
    the loss' own weights: c_1, and steps softplus(t) to the next ones. They start where a score of
    the mean target gives the levels their shares in training. A score predicts the expected target.
    Source: McCullagh, "Regression Models for Ordinal Data", 1980; for recommenders Koren and Sill,
    "OrdRec", 2011.
    """

    Settings = OrdinalSettings

    def prepare(self, train: Interactions) -> None:
        super().prepare(train)
        targets = np.concatenate([self._targets_of(chunk) for chunk in train.chunks()])
        levels, counts = np.unique(targets, return_counts=True)
        if not 2 <= len(levels) <= MOST_LEVELS:
            raise UsageError(
                f"loss=ordinal: the training ratings have {len(levels)} levels, and it takes 2 "
                f"to {MOST_LEVELS}."
            )
        self.levels = levels.astype(np.float32)
        below = np.cumsum(counts)[:-1] / len(targets)
        cuts = targets.mean() + np.log(below / (1 - below))
        steps = np.log(np.expm1(np.diff(cuts)))  # softplus of it is the difference
        self.cuts = tf.Variable(np.concatenate([cuts[:1], steps]), dtype=tf.float32, name="cuts")

    def _targets_of(self, chunk: Columns) -> np.ndarray:
        assert self.scaling is not None
        return self.scaling.to_targets(chunk["rating"], chunk["product"])

    def named_weights(self) -> dict[str, tf.Variable]:
        return {"cuts": self.cuts}

    def from_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),
        # stable for any a > b
        cuts = tf.concat([[-ENDLESS], self.cut_points(), [ENDLESS]], axis=0)
        level = tf.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, tf.reshape(y, [-1]))
        level = tf.reshape(level, tf.shape(y))
        low, high = tf.gather(cuts, level), tf.gather(cuts, level + 1)
        outside = tf.nn.softplus(scores - high) + tf.nn.softplus(low - scores)
        return outside - tf.math.log(-tf.math.expm1(low - high))

    def inverse_link(self, scores: tf.Tensor) -> tf.Tensor:
        expected = tf.fill(tf.shape(scores), self.levels[-1])
        # one level after the other: [..., K] would not fit
        for cut, step in zip(tf.unstack(self.cut_points()), np.diff(self.levels)):
            expected -= step * tf.sigmoid(cut - scores)
        return expected

    def cut_points(self) -> tf.Tensor:
        """c_1 .. c_{K-1}, f32 [K - 1]."""
        raw = tf.convert_to_tensor(self.cuts)
        return tf.cumsum(tf.concat([raw[:1], tf.nn.softplus(raw[1:])], axis=0))
