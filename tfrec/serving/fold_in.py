"""Fold-in: scores for users who were not in training, from a few ratings or likes. The rest of the
model stays as it is.

    rows = argmin  sum_i w_i loss(y^(rows, p_i), y_i) / sum_i w_i + l2 |rows|^2

by 200 steps of Adam from the mean row of the trained users: training's objective of one user, with
its loss, weights and l2, of which biases are free. For likes (the ranking task) each list is scored
beside negatives drawn anew at each step, by training's law. Pure TensorFlow, so it is a part of the
SavedModel. A closed form has its own, Recommender.fold_in_scores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.data.negatives import Sampler, sampling_weights
from tfrec.errors import UsageError
from tfrec.losses import Loss, SampledSoftmax, SquaredError
from tfrec.models.base import Batch, Recommender
from tfrec.models.neighbours import confidence
from tfrec.models.output import Output
from tfrec.serving import ids
from tfrec.settings import for_task
from tfrec.training.settings import TrainerSettings

STEPS, LEARNING_RATE = 200, 0.1  # the rate falls to 0 along a line
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
NEGATIVES = 64  # drawn at each step, shared by all lists

Rows = dict[str, tf.Tensor]


class FoldIn(tf.Module):
    """Scores for users who are not in the data.

    Args:
        model: A trained model.
        train: What it was trained on.

    Raises:
        UsageError: Its implicit factors are not a part of its tables yet.
    """

    def __init__(self, model: Recommender, train: Interactions) -> None:
        super().__init__()
        users = train.counts("user") > 0
        self._model, self._output = ids.Untracked(model), _output(model)
        if not all(layer.finalized for layer in model.implicit_factors().values()):
            raise UsageError(
                "model: its implicit factors are no part of its tables yet. Call "
                "model.finalize() when training has ended, as Trainer.fit does."
            )
        tables = {} if model.closed_form else model.embeddings("user")
        self.start = {
            path: ids.variable(table.table.numpy()[users].mean(axis=0))
            for path, table in tables.items()
        }
        sums = {} if model.closed_form else model.feature_embeddings()
        self.sums = {  # of the mean user
            path: ids.variable(layer.sums()[users].mean(axis=0))
            for path, layer in sums.items()
            if layer.features.side == "user"
        }
        attributes = train.catalog.user_features.take(np.flatnonzero(users))
        mean = np.bincount(attributes.columns, attributes.values, attributes.shape[1])
        self._attributes = ids.variable((mean / max(users.sum(), 1)).astype(np.float32))
        self._highest = train.stats.range[1]
        negatives = getattr(self._output.loss, "negatives", None)
        power = negatives.power if negatives else 0.0
        weights = sampling_weights(train.counts("product"), power)
        self._sampler = ids.Untracked(Sampler(weights))

    def __call__(
        self, products: tf.Tensor, ratings: tf.Tensor, context: tf.Tensor
    ) -> tf.Tensor | None:
        """Scores every product.

        Args:
            products: What each user has rated, each once, int32 [B, L], -1 for padding.
            ratings: f32 [B, L].
            context: f32 [B, C].

        Returns:
            What the scores say, f32 [B, P]; None: the model cannot be folded into.
        """
        model, known = self._model.it, tf.maximum(products, 0)
        weight = tf.cast(products >= 0, tf.float32)
        if not self.start:
            scores = model.fold_in_scores(known, ratings, weight)
            return None if scores is None else self._output(scores)
        power = self._output.loss.confidence_power
        if power:  # as in training
            weight *= tf.maximum(confidence(ratings, tf.constant(self._highest), power), 1e-9)
        # no day: theirs are not the days of users here
        batch = {"user": tf.range(tf.shape(products)[0]), "context": context}
        if model.reads("user_features") and self._attributes.shape[0]:  # nothing is known of them
            batch["user_features"] = tf.tile(self._attributes[None], [tf.shape(products)[0], 1])
        count = tf.shape(products)[0]
        sums = {path: tf.tile(row[None], [count, 1]) for path, row in self.sums.items()}
        with model.override_embeddings(sums):
            rows = self.rows(batch, known, self._output.targets(ratings, known), weight)
            with model.override_embeddings(rows):
                return self._output(model.score_all(batch))

    def rows(self, batch: Batch, products: tf.Tensor, y: tf.Tensor, weight: tf.Tensor) -> Rows:
        """Table rows for B users.

        Args:
            batch: user int32 [B] = 0 .. B - 1, and what else the model reads of users.
            products, y, weight: int32, f32, f32 [B, L]: what each has rated, as targets; weight 0
                is padding. For ranking y is not read.

        Returns:
            {path: [B, width]}, for Recommender.override_embeddings.
        """
        model, loss = self._model.it, self._output.loss
        count, penalized = tf.shape(products)[0], model.penalized()
        share = tf.math.divide_no_nan(weight, tf.reduce_sum(weight, axis=1, keepdims=True))
        rows = {path: tf.tile(row[None], [count, 1]) for path, row in self.start.items()}

        def negatives_at(step: tf.Tensor) -> Batch:
            drawn = self._sampler.it.draw([NEGATIVES], tf.stack([step, 0]))
            if not getattr(loss, "exclude_positives", False):
                return {"negatives": drawn}
            theirs = tf.equal(products[:, :, None], drawn) & (weight[:, :, None] > 0)
            others = tf.cast(~tf.reduce_any(theirs, axis=1), tf.float32)
            return {"negatives": drawn, "negative_weight": others}

        def gradients_at(rows: Rows, step: tf.Tensor) -> Rows:
            with tf.GradientTape() as tape:
                tape.watch(rows)
                with model.override_embeddings(rows):
                    each = loss.per_list(model, batch | negatives_at(step), products, y)
                total = tf.reduce_sum(share * each)
                total += self._output.l2 * tf.add_n(
                    [
                        tf.reduce_sum(penalized[f"{path}/table"] * tf.square(row))
                        for path, row in rows.items()
                    ]
                )
            return tape.gradient(total, rows)

        return _minimized(rows, gradients_at)


def _minimized(rows: Rows, gradients_at: Callable[[Rows, tf.Tensor], Rows]) -> Rows:
    """Returns the rows after STEPS of Adam by gradients_at(rows, step)."""

    def update(step: tf.Tensor, rows: Rows, first: Rows, second: Rows) -> tuple[Any, ...]:
        gradients, rate = gradients_at(rows, step), _rate(step)
        first = {path: BETA1 * first[path] + (1 - BETA1) * gradients[path] for path in rows}
        second = {
            path: BETA2 * second[path] + (1 - BETA2) * tf.square(gradients[path]) for path in rows
        }
        rows = {
            path: rows[path] - rate * first[path] / (tf.sqrt(second[path]) + EPSILON)
            for path in rows
        }
        return step + 1, rows, first, second

    zeros = {path: tf.zeros_like(row) for path, row in rows.items()}
    start = tf.constant(0), rows, zeros, zeros
    return tf.while_loop(lambda step, *_: step < STEPS, update, start)[1]


def _output(model: Recommender) -> Output:
    """Returns what the model's scores say; of one without a loss, by its task's default loss."""
    if model.closed_form or model.output.loss is not None:
        return model.output
    if model.task == "rating":
        loss: Loss = SquaredError(target_scaling="none")
    else:
        loss = SampledSoftmax()
        loss.prepare(model.data)
    l2 = for_task(TrainerSettings(), model.task).l2
    return Output(loss, model.data, l2)


def _rate(step: tf.Tensor) -> tf.Tensor:
    """Returns the learning rate of a step, with Adam's correction."""
    time = tf.cast(step + 1, tf.float32)
    return LEARNING_RATE * (1 - (time - 1) / STEPS) * tf.sqrt(1 - BETA2**time) / (1 - BETA1**time)
