"""Sampled negatives, a pure function of (seed, epoch, step).

A product is drawn with a probability in proportion to its mass, an integer: 1, or its training rows
to a power. One without training rows has none: training would teach that it is bad. Masses are
integers so that a user's own products can be cut out exactly: a number is drawn below what is left,
and moved up by the sampling_weights that it passes.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

RESOLUTION = 2**32  # about what the sampling_weights of a power add up to
MOST_PAIRS = 2**28  # of users and products, which are kept as bits: 32 MB


@dataclass(frozen=True)
class Negatives:
    """Which negatives a batch of the ranking task has.

    Args:
        count: int32 [B, count] of each row's own.
        shared: int32 [shared] in place of that, the same for all rows of a global batch; 0: they
            are not shared.
        in_batch: int32 [B] in place of that, the products of the global batch.
        power: Drawn in proportion to the training rows to this power; 0: uniformly.
        exclude_positives: No products that the row's user has in training; where negatives are
            shared, such weigh 0 in batch["negative_weight"].
        explicit: The first of a row's own negatives is a product that its user is known not to
            like, where there is one.
    """

    count: int = 8
    shared: int = 0
    in_batch: bool = False
    power: float = 0.0
    exclude_positives: bool = False
    explicit: bool = False


def uniform(shape: list[int], count: int, seed: tf.Tensor) -> tf.Tensor:
    """int32 `shape`, uniform over 0 .. count - 1. seed: int [2]."""
    return tf.random.stateless_uniform(shape, seed, maxval=count, dtype=tf.int32)


def sampling_weights(counts: np.ndarray, power: float) -> np.ndarray:
    """counts int [P] -> int64 [P].

    0 where there is no row; else 1 for power 0, or in proportion to counts^power and at least 1.
    """
    if not power:
        return (counts > 0).astype(np.int64)
    weight = np.power(np.maximum(counts, 1.0), power) * (counts > 0)
    return np.maximum(np.round(weight / weight.sum() * RESOLUTION), counts > 0).astype(np.int64)


class Sampler:
    """Draws products by their sampling_weights int64 [P]."""

    def __init__(self, mass: np.ndarray) -> None:
        self.total, self.num_products = int(mass.sum()), len(mass)
        self.flat = None if mass.max(initial=0) > 1 else here(np.flatnonzero(mass).astype(np.int32))
        self.ends = here(np.cumsum(mass))

    def draw(self, shape: list[int], seed: tf.Tensor) -> tf.Tensor:
        """int32 `shape`. seed: int [2]."""
        if self.flat is None:
            return self.at(self.uniforms(shape, seed) * self.total)
        return tf.gather(self.flat, uniform(shape, self.total, seed))

    def uniforms(self, shape: list[int], seed: tf.Tensor) -> tf.Tensor:
        """Returns where in 0..1 the draws are, f64 `shape`."""
        return tf.random.stateless_uniform(shape, seed, dtype=tf.float64)

    def at(self, place: tf.Tensor) -> tf.Tensor:
        """Returns the products at these places of the sampling_weights side by side, 0 <= place <
        total.

        F64 or int64 [...] -> int32 [...].
        """
        found = tf.searchsorted(self.ends, tf.reshape(tf.cast(place, tf.int64), [-1]), side="right")
        return tf.reshape(tf.minimum(found, self.num_products - 1), tf.shape(place))


class ProductsOfUsers:
    """Products of each user: those of user u are products[begins[u] : begins[u + 1]]."""

    def __init__(self, products: np.ndarray, begins: np.ndarray) -> None:
        self.products, self.begins = here(products), here(begins)

    @staticmethod
    def of(user: np.ndarray, product: np.ndarray, num_users: int) -> "ProductsOfUsers":
        """Returns the products of rows, user and product int32 [n]."""
        order = np.argsort(user, kind="stable")
        begins = np.searchsorted(user[order], np.arange(num_users + 1))
        return ProductsOfUsers(product[order], begins)

    def draw(self, user: tf.Tensor, uniforms: tf.Tensor, otherwise: tf.Tensor) -> tf.Tensor:
        """Returns one of each user's products, or otherwise's where they have none.

        Args:
            user: int32 [...].
            uniforms: f64 [...] in 0..1, which says which.
            otherwise: int32 [...].
        """
        first, last = tf.gather(self.begins, user), tf.gather(self.begins, user + 1)
        place = first + tf.cast(uniforms * tf.cast(last - first, tf.float64), first.dtype)
        place = tf.minimum(place, tf.size(self.products, first.dtype) - 1)
        return tf.where(last > first, tf.gather(self.products, place), otherwise)


class PositivesIndex:
    """Which products each user has in training (user, product int32 [n]), and draws from the
    others.
    """

    def __init__(
        self, user: np.ndarray, product: np.ndarray, num_users: int, mass: np.ndarray
    ) -> None:
        self.num_products = len(mass)
        keys = np.unique(user.astype(np.int64) * self.num_products + product)
        users, products = keys // self.num_products, keys % self.num_products
        before = np.concatenate([[0], np.cumsum(mass[products])])  # over all users
        first = np.searchsorted(users, np.arange(num_users + 1))
        begins = (np.cumsum(mass) - mass)[products] - (
            before[:-1] - before[first[users]]
        )  # without their products before it
        self.stride = int(mass.sum()) + 1
        self.keys, self.first, self.before = here(keys), here(first), here(before)
        self.begins = here(users * self.stride + begins)
        self.bits = None
        if num_users * self.num_products <= MOST_PAIRS:
            taken = np.zeros(num_users * self.num_products, bool)
            taken[keys] = True
            self.bits = here(np.packbits(taken, bitorder="little"))

    def sample_unseen(self, sampler: Sampler, user: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
        """Returns a product for each of the numbers, f64 [B, N] in 0..1, that the row's user [B]
        does not have: int32 [B, N].

        By the constructor's sampling_weights; who has all products gets some of their own.
        """
        first, last = (tf.gather(self.first, user + place) for place in (0, 1))
        passed = tf.gather(self.before, first)
        left = sampler.total - (tf.gather(self.before, last) - passed)
        place = tf.cast(uniforms * tf.cast(left, tf.float64)[:, None], tf.int64)
        wanted = tf.cast(user, tf.int64)[:, None] * self.stride + place
        found = tf.reshape(
            tf.searchsorted(self.begins, tf.reshape(wanted, [-1]), side="right"), tf.shape(wanted)
        )
        return sampler.at(place + tf.gather(self.before, found) - passed[:, None])

    def contains(self, user: tf.Tensor, products: tf.Tensor) -> tf.Tensor:
        """Does the user [B] have the product? int32 [B, N] -> bool [B, N]."""
        if self.bits is not None:
            wanted = user[:, None] * self.num_products + products
            byte = tf.gather(self.bits, tf.bitwise.right_shift(wanted, 3))
            bit = tf.bitwise.left_shift(1, tf.bitwise.bitwise_and(wanted, 7))
            return tf.bitwise.bitwise_and(tf.cast(byte, tf.int32), bit) > 0
        wanted = tf.cast(user, tf.int64)[:, None] * self.num_products + tf.cast(products, tf.int64)
        found = tf.searchsorted(self.keys, tf.reshape(wanted, [-1]))
        there = tf.gather(self.keys, tf.minimum(found, tf.size(self.keys, found.dtype) - 1))
        return tf.equal(tf.reshape(there, tf.shape(wanted)), wanted)


def here(values: np.ndarray) -> tf.Tensor:
    """Made outside of any graph, so that none holds a copy as a constant."""
    with tf.init_scope(), tf.device("CPU:0"):
        return tf.constant(values)
