"""Output: what a model's scores say, in the data's own unit."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data.targets import target_range


class Output(tf.Module):
    """Scores -> answers: ratings, or numbers to rank by.

        answer(s, p) = scale_p link^-1(s) + offset_p

    Args:
        loss: What the model is trained with, a Loss; None: an answer is the score.
        train: The training rows, to whose targets fold-in clips; needed where the loss scales them.
        l2: Strength of L2 in training, for fold-in.
    """

    def __init__(self, loss: Any = None, train: Any = None, l2: float = 0.0) -> None:
        super().__init__()
        self.loss, self.l2 = loss, l2
        self.scale = self.offset = None
        self.range = (-np.inf, np.inf)
        scaling = loss.scaling if loss else None
        if scaling is not None:
            self.scale = tf.Variable(scaling.scale, trainable=False, name="scale")
            self.offset = tf.Variable(scaling.offset, trainable=False, name="offset")
            self.range = target_range(scaling, train.stats)

    def __call__(self, scores: tf.Tensor, products: tf.Tensor | None = None) -> tf.Tensor:
        """Returns what scores f32 [..., N] say.

        Args:
            products: int32 [..., N], those that the scores are of; None: every product, N = P.

        Returns:
            f32 [..., N].
        """
        answers = scores if self.loss is None else self.loss.inverse_link(scores)
        if self.scale is None:
            return answers
        return answers * _of(self.scale, products) + _of(self.offset, products)

    def targets(self, ratings: tf.Tensor, products: tf.Tensor) -> tf.Tensor:
        """Returns what training would learn of ratings f32 [...] of products int32 [...], f32
        [...].
        """
        if self.scale is None:
            return ratings
        return scaled(ratings, _of(self.scale, products), _of(self.offset, products), self.range)


def scaled(
    ratings: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, bounds: tuple[float, float]
) -> tf.Tensor:
    """As Scaling.to_targets, within the bounds of the training targets; all f32 [...]."""
    targets = (ratings - offset) / tf.where(scale == 0, 1.0, scale)
    return tf.clip_by_value(tf.where(scale == 0, 0.5, targets), *bounds)


def _of(values: tf.Variable, products: tf.Tensor | None) -> tf.Tensor:
    return tf.convert_to_tensor(values) if products is None else tf.gather(values, products)
