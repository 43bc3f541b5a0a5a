"""Fold-in: table rows for a user who was not in training, from a few of his ratings or likes. The
rest of the model stays as it is.

    rows = argmin  sum_i w_i loss(y^(rows, p_i), y_i) / sum_i w_i + l2 |rows|^2

by 200 steps of Adam from the mean row of the trained users: training's objective of one user, with
its loss, weights and l2, of which biases are free. For likes (the ranking task) each list is scored
beside negatives drawn anew at each step, by training's law. Pure TensorFlow, so it is a part of the
SavedModel.
"""

import tensorflow as tf

from tfrec.data.negatives import Sampler
from tfrec.losses import Loss
from tfrec.models.base import Batch, Recommender

STEPS, LEARNING_RATE = 200, 0.1  # the rate falls to 0 along a line
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-7
NEGATIVES = 64  # drawn at each step, shared by all lists

Rows = dict[str, tf.Tensor]


def fold_in(
    model: Recommender,
    loss: Loss,
    start: Rows,
    batch: Batch,
    products: tf.Tensor,
    y: tf.Tensor,
    weight: tf.Tensor,
    l2: float,
    sampler: Sampler,
) -> Rows:
    """Rows for B users.

    Args: start: {path: [width]}: the row that each user begins with, of each of the model's user
        tables. batch: user int32 [B] = 0 .. B - 1, and what else the model reads of users.
        products, y, weight: int32, f32, f32 [B, L]: what each has rated, as targets; weight 0 is
        padding. For ranking y is not read.

    Returns:
        {path: [B, width]}, for Recommender.override_embeddings.
    """
    count, penalized = tf.shape(products)[0], model.penalized()
    share = tf.math.divide_no_nan(weight, tf.reduce_sum(weight, axis=1, keepdims=True))
    rows = {path: tf.tile(row[None], [count, 1]) for path, row in start.items()}
    first = {path: tf.zeros_like(row) for path, row in rows.items()}
    second = {path: tf.zeros_like(row) for path, row in rows.items()}
    for step in tf.range(STEPS):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            with model.override_embeddings(rows):
                drawn = {"negatives": sampler.draw([NEGATIVES], tf.stack([step, 0]))}
                each = loss.per_list(model, batch | drawn, products, y)
            total = tf.reduce_sum(share * each)
            total += l2 * tf.add_n(
                [
                    tf.reduce_sum(penalized[f"{path}/table"] * tf.square(row))
                    for path, row in rows.items()
                ]
            )
        gradients = tape.gradient(total, rows)
        time = tf.cast(step + 1, tf.float32)
        rate = (
            LEARNING_RATE * (1 - (time - 1) / STEPS) * tf.sqrt(1 - BETA2**time) / (1 - BETA1**time)
        )
        first = {path: BETA1 * first[path] + (1 - BETA1) * gradients[path] for path in rows}
        second = {
            path: BETA2 * second[path] + (1 - BETA2) * tf.square(gradients[path]) for path in rows
        }
        rows = {
            path: rows[path] - rate * first[path] / (tf.sqrt(second[path]) + EPSILON)
            for path in rows
        }
    return rows
