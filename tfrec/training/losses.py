"""Losses: (model, batch, y) -> one number per row, which the loop weighs and averages over the global batch."""

import tensorflow as tf

from tfrec.config import TrainConfig
from tfrec.models.base import Batch, Recommender


class Loss(tf.Module):
    """What training minimises."""

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        """One number a row, f32 [B]."""
        raise NotImplementedError


class Rating(Loss):
    """An error of each score."""

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        return self.of_scores(model(batch, training=True), y)

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """scores and targets y f32 [...] -> f32 [...]."""
        raise NotImplementedError


class SquaredError(Rating):
    """(y^ - y)^2."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.square(scores - y)


class AbsoluteError(Rating):
    """|y^ - y|."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.abs(scores - y)


class Huber(Rating):
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = y^ - y."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        error = tf.abs(scores - y)
        return tf.where(error <= 1, tf.square(error) / 2, error - 0.5)


class Sigmoid(Loss):
    """Sigmoid cross-entropy of the product (label 1) and of its n negatives (label 0), their mean: (l(s) + n mean_j l(-s_j)) / (1 + n).

    l(s) = log(1 + exp(-s)). A pool that the batch shares, of any size, weighs as much as n negatives: the same loss in expectation.
    """

    def __init__(self, negatives: int) -> None:
        super().__init__()
        self.negatives = negatives

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        score, of_negatives = _scores(model, batch)
        negative = tf.reduce_mean(tf.nn.softplus(of_negatives), axis=1)
        return (tf.nn.softplus(-score) + self.negatives * negative) / (1 + self.negatives)


def make(config: TrainConfig) -> Loss:
    """The loss of the settings."""
    if config.loss == "sigmoid":
        return Sigmoid(config.negatives)
    return {"mse": SquaredError, "mae": AbsoluteError, "huber": Huber}[config.loss]()


def _scores(model: Recommender, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
    """Of batch["product"], f32 [B], and of batch["negatives"] int32 [B, N] or, shared by the rows, [N]: f32 [B, N]."""
    if batch["negatives"].shape.rank == 1:  # one matrix product, and the gradient has B + N rows of the product table
        return model(batch, training=True), model.score_candidates(batch, batch["negatives"])
    products = tf.concat([tf.expand_dims(batch["product"], 1), batch["negatives"]], axis=1)
    scores = model.score_candidates(batch, products)
    return scores[:, 0], scores[:, 1:]
