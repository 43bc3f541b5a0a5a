"""Losses: (model, batch, y) -> one number per row, which the loop weighs and averages over the global batch."""

from collections.abc import Callable

import tensorflow as tf

from tfrec.models.base import Batch, Recommender

Loss = Callable[[Recommender, Batch, tf.Tensor], tf.Tensor]


def mse(model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
    """(y^ - y)^2, [B]."""
    return tf.square(model(batch, training=True) - y)


def mae(model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
    """|y^ - y|, [B]."""
    return tf.abs(model(batch, training=True) - y)


def huber(model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = y^ - y; [B]."""
    error = tf.abs(model(batch, training=True) - y)
    return tf.where(error <= 1, tf.square(error) / 2, error - 0.5)


def sigmoid(model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
    """Sigmoid cross-entropy of the product (label y) and its negatives (label 0), their mean; [B]."""
    products = tf.concat([batch["product"][:, None], batch["negatives"]], axis=1)
    logits = model.score_candidates(batch, products)
    labels = tf.concat([y[:, None], tf.zeros_like(logits[:, 1:])], axis=1)
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels, logits), axis=1)


LOSSES: dict[str, Loss] = {"mse": mse, "mae": mae, "huber": huber, "sigmoid": sigmoid}
