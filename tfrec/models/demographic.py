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

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.data.sparse import SparseFeatures
from tfrec.data.tables import MISSING
from tfrec.errors import UsageError
from tfrec.layers import FeatureTable, Products, rows_at
from tfrec.models.base import Batch, Recommender
from tfrec.models.popularity import Popularity
from tfrec.settings import NoSettings

ROWS_AT_ONCE = 1_000_000


class Demographic(Recommender):
    """Scores in rating units (rating), or shares of users in 0..1 (ranking).

    Only attribute values, columns of 0 and 1 of the users' features, make groups. of_all f32 [P] is
    mu + b_p, or n_p / n. of_group [P, G] is d, or n_gp / (n_g + damping); there prior f32 [G],
    damping / (n_g + damping), is the share of of_all.
    """

    closed_form = True
    takes_weights = ()
    batch_columns = ()
    uses_user_features = True
    damping = 10.0

    def __init__(self, train: Interactions, settings: NoSettings) -> None:
        super().__init__(name="demographic", dtype="float32")
        attributes = train.catalog.user_features
        groups = has_attribute(attributes)
        if not groups.any():
            raise UsageError(
                "model=demographic: the data have no attributes of users (age, gender, ...), so "
                "there are no groups."
            )
        inside = np.flatnonzero(groups[attributes.columns])
        entries = attributes.rows[inside], attributes.columns[inside], attributes.values[inside]
        self.members = SparseFeatures.of_entries(entries, train.num_users, attributes.names)
        self.user_features = FeatureTable(self.members, "user")
        self.groups = self._weight("groups", groups.astype(np.float32))
        self.of_all = self._weight("of_all", np.zeros(train.num_products, np.float32))
        self.prior = self._weight("prior", np.zeros(len(groups), np.float32))
        columns = train.columns()
        places = self._by_group(columns["user"], columns["product"], np.zeros(len(train)))
        self.of_group = FeatureTable(places, "product")
        self.floats_per_score = 1 + len(groups) // train.num_products
        sizes = np.diff(places.begins)[columns["product"]]  # 10: the entries of a sparse product
        self.floats_per_row = 2 * len(groups) + 10 * int(sizes.mean() if len(sizes) else 0)

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        known = batch.get("user_features")  # of users who are not in the data
        known = self.user_features(batch["user"]).dense() if known is None else known
        member = known * self.groups.value
        size = tf.reduce_sum(member, axis=1, keepdims=True)
        share = tf.math.divide_no_nan(member, size)  # [B, G], of the mean
        of_all = rows_at(self.of_all.value, products)
        if self.task == "ranking":
            of_all *= tf.linalg.matvec(share, self.prior.value)[:, None]
        return of_all + self.of_group(products).dot(share)

    def fit_closed_form(self, train: Interactions) -> None:
        columns = train.columns()
        user, product = columns["user"], columns["product"]
        if self.task == "rating":
            bias = Popularity.from_data(train, "rating")
            bias.fit_closed_form(train)
            of_all = (bias.mean + bias.products(None)["bias"]).numpy()
            sums = self._by_group(user, product, columns["rating"] - of_all[product])
            counts = self._by_group(user, product, np.ones(len(user)))
            self.of_all.assign(of_all)
            self.of_group.assign(sums.with_values(sums.values / (counts.values + self.damping)))
            return
        keys = np.unique(product.astype(np.int64) * train.num_users + user)
        product, user = np.divmod(keys, train.num_users)
        known = np.unique(user)
        members = self.members.take(known)
        size = np.bincount(members.columns, minlength=members.shape[1]) + self.damping
        counts = self._by_group(user, product, np.ones(len(user)))
        self.of_all.assign(np.bincount(product, minlength=train.num_products) / len(known))
        self.prior.assign(self.damping / size)
        self.of_group.assign(counts.with_values(counts.values / size[counts.columns]))

    def _by_group(
        self, user: np.ndarray, product: np.ndarray, values: np.ndarray
    ) -> SparseFeatures:
        """Returns the sums of the rows' values [n] by product and group, [P, G]."""
        num_products, names, pieces = self.of_all.shape[0], self.members.names, []
        for begin in range(0, max(len(user), 1), ROWS_AT_ONCE):
            of = slice(begin, begin + ROWS_AT_ONCE)
            members = self.members.take(user[of])
            entries = product[of][members.rows], members.columns, values[of][members.rows]
            sums = SparseFeatures.of_entries(entries, num_products, names)
            pieces.append((sums.rows, sums.columns, sums.values))
        rows, columns, sums_of = (np.concatenate(parts) for parts in zip(*pieces))
        return SparseFeatures.of_entries((rows, columns, sums_of), num_products, names)

    def _weight(self, name: str, values: np.ndarray) -> tf.keras.Variable:
        start = tf.keras.initializers.Constant(values)
        return self.add_weight(shape=values.shape, initializer=start, trainable=False, name=name)


def has_attribute(user_features: SparseFeatures) -> np.ndarray:
    """Returns which columns are attribute values, of 0 and 1, that somebody has.

    They make groups. bool [G].
    """
    count = user_features.shape[1]
    ones = np.bincount(user_features.columns[user_features.values == 1], minlength=count)
    others = np.bincount(user_features.columns[user_features.values != 0], minlength=count)
    return (ones > 0) & (ones == others)


def known_attributes(user_features: SparseFeatures) -> np.ndarray:
    """Returns which columns say something of who has them.

    Those `has_attribute`, but for the one that stands for a missing value. bool [G].
    """
    missing = [name.endswith(f"={MISSING}") for name in user_features.names]
    return has_attribute(user_features) & ~np.array(missing, bool)
