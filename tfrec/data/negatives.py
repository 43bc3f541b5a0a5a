"""Sampled negatives, a pure function of (seed, epoch, step)."""

import tensorflow as tf


def uniform(shape: list[int], num_products: int, seed: tf.Tensor) -> tf.Tensor:
    """int32 `shape`, uniform over all products; a user's own positives may be among them. seed: int [2]."""
    return tf.random.stateless_uniform(shape, seed, maxval=num_products, dtype=tf.int32)
