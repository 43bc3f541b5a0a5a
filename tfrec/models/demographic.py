"""Demographic: a user is judged by their attributes, as the mean of the groups that they
belong to.

    rating:   y^(u, p) = mu + b_p + mean_g d[g, p]
              d[g, p] = sum (y - mu - b_p) / (n_gp + damping), over the group's ratings of p
    ranking:  y^(u, p) = mean_g c[g, p]
              c[g, p] = (n_gp + damping n_p / n) / (n_g + damping)

g runs over the user's attribute values (age 25-34, gender F, ...); n_gp of the n_g users in group g
have rated p, and n_p of all n. So a small group says what everybody says. mu and b_p are those of
the bias model (popularity.py). The user's id has no part in it: a user without ratings is no
different from any other. Source: the reference system (docs/reference.md), "cold start".
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.data.tables import MISSING
from tfrec.errors import UsageError
from tfrec.layers import Products
from tfrec.models.base import Batch, Recommender
from tfrec.models.popularity import Popularity
from tfrec.settings import NoSettings


class Demographic(Recommender):
    """Scores in rating units (rating), or shares of users in 0..1 (ranking).

    Only attribute values, columns of 0 and 1 of the users' features, make groups. of_all f32 [P] is
    mu + b_p or 0; of_group f32 [G, P] is d or c.
    """

    closed_form = True
    takes_weights = ()
    uses_user_features = True
    damping = 10.0

    def __init__(self, train: Interactions, settings: NoSettings) -> None:
        super().__init__(name="demographic", dtype="float32")
        user_features, num_products = train.catalog.user_features, train.num_products
        groups = has_attribute(user_features)
        if not groups.any():
            raise UsageError(
                "model=demographic: the data have no attributes of users (age, gender, ...), so "
                "there are no groups."
            )
        self.user_features = np.asarray(user_features * groups, np.float32)
        constant = tf.keras.initializers.Constant
        self.groups = self.add_weight(
            shape=groups.shape, initializer=constant(groups), trainable=False, name="groups"
        )
        self.of_all = self.add_weight(
            shape=(num_products,), initializer="zeros", trainable=False, name="of_all"
        )
        self.of_group = self.add_weight(
            shape=(len(groups), num_products), initializer="zeros", trainable=False, name="of_group"
        )

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        member = batch["user_features"] * self.groups.value
        share = tf.math.divide_no_nan(
            member, tf.reduce_sum(member, axis=1, keepdims=True)
        )  # [B, G], of the mean
        of_all, of_group = (
            tf.convert_to_tensor(self.of_all.value),
            tf.convert_to_tensor(self.of_group.value),
        )
        if products is None or products.shape.rank == 1:
            if products is not None:
                of_all, of_group = (
                    tf.gather(of_all, products),
                    tf.gather(of_group, products, axis=1),
                )
            return of_all + tf.matmul(share, of_group)
        return tf.gather(of_all, products) + tf.einsum(
            "bg,gbn->bn", share, tf.gather(of_group, products, axis=1)
        )

    def fit_closed_form(self, train: Interactions) -> None:
        columns = train.columns()
        user, product, y = columns["user"], columns["product"], columns["rating"]
        num_users, num_products = len(self.user_features), self.of_all.shape[0]
        member = tf.constant(self.user_features)
        if self.task == "rating":
            bias = Popularity.from_data(train, "rating")
            bias.fit_closed_form(train)
            of_all = (bias.mean + bias.products(None)["bias"]).numpy()
            self.of_all.assign(of_all)
            sums = _by_group(product, user, y - of_all[product], num_products, member)
            counts = _by_group(product, user, np.ones_like(y), num_products, member)
            self.of_group.assign(sums / (counts + self.damping))
            return
        keys = np.unique(product.astype(np.int64) * num_users + user)
        product, user = keys // num_users, keys % num_users
        known = np.unique(user)
        chosen = _by_group(product, user, np.ones(len(keys)), num_products, member)
        everyone = np.bincount(product, minlength=num_products).astype(np.float32) / len(known)
        size = self.user_features[known].sum(axis=0)[:, None]
        self.of_group.assign((chosen + self.damping * everyone) / (size + self.damping))


def has_attribute(user_features: np.ndarray) -> np.ndarray:
    """Returns which columns of f32 [U, G] are attribute values, of 0 and 1, that somebody has.

    They make groups. bool [G].
    """
    return ((user_features == 0) | (user_features == 1)).all(axis=0) & (user_features == 1).any(
        axis=0
    )


def known_attributes(user_features: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Returns which columns say something of who has them.

    Those `has_attribute`, but for the one that stands for a missing value. bool [G].
    """
    return has_attribute(user_features) & ~np.array(
        [name.endswith(f"={MISSING}") for name in names], bool
    )


def _by_group(
    product: np.ndarray, user: np.ndarray, values: np.ndarray, num_products: int, member: tf.Tensor
) -> tf.Tensor:
    """Sums of the values [n] by group and product.

    [P, U] as a sparse matrix, times member [U, G] -> f32 [G, P].
    """
    order = np.lexsort((user, product))
    places = np.stack([product[order], user[order]], axis=1).astype(np.int64)
    matrix = tf.SparseTensor(
        places, values[order].astype(np.float32), [num_products, member.shape[0]]
    )
    return tf.transpose(tf.sparse.sparse_dense_matmul(matrix, member))
