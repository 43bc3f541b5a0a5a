"""The contract of a model: a batch in, one number per row out."""

from collections.abc import Iterator
from typing import Any, ClassVar

import tensorflow as tf

from tfrec.models.layers import Products

Batch = dict[str, tf.Tensor]


class Recommender(tf.keras.Model):
    """A model says in `score` what a user's products are worth to him; every other way of scoring follows.

    Scores are in target units for the rating task, logits for the ranking task.
    """

    tasks: ClassVar[tuple[str, ...]] = ("rating", "ranking")
    width = 1  # numbers that are made for each score of `score_products`: bounds how many users are ranked at once
    closed_form: ClassVar[bool] = False  # fitted by `adapt` instead of the training loop

    def adapt(self, examples: dict[str, Any]) -> None:
        """Fits a closed form to all training rows: arrays user, product int [n], context f32 [n, C] and targets y f32 [n]."""
        raise NotImplementedError

    def named_weights(self) -> dict[str, tf.Variable]:
        """{path by attributes, such as "interaction/user/table": raw variable}, trainable or not.

        Raises:
            RuntimeError: a weight is not reached through attributes (a plain list of layers, say), and would be lost in a checkpoint.
        """
        found = dict(_walk(self, ""))
        if len(found) != len(self.weights):
            missing = {id(weight) for weight in self.weights} - {id(weight) for weight in found.values()}
            names = [weight.path for weight in self.weights if id(weight) in missing]
            raise RuntimeError(f"{self.name}: keep layers as attributes of the model; not found: {', '.join(names)}")
        return {path: weight.value for path, weight in found.items()}

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        """products int32 [B, N], int32 [N] or None (every product) -> f32 [B, N] or [B, P]."""
        raise NotImplementedError

    def call(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """One score a row, f32 [B], of batch["product"]."""
        return self.score(batch, batch["product"][:, None])[:, 0]

    def score_candidates(self, batch: Batch, products: tf.Tensor) -> tf.Tensor:
        """products int32 [B, N], or [N] the same for all rows -> f32 [B, N]; the user's side is computed once."""
        return self.score(batch, products)

    def score_products(self, batch: Batch) -> tf.Tensor:
        """Scores of every product, f32 [B, P]."""
        return self.score(batch, None)


def _walk(layer: tf.keras.layers.Layer, prefix: str) -> Iterator[tuple[str, tf.keras.Variable]]:
    for name, value in vars(layer).items():
        path = prefix + name.strip("_")
        if isinstance(value, tf.keras.Variable):
            yield path, value
        elif isinstance(value, tf.keras.layers.Layer):
            yield from _walk(value, f"{path}/")
