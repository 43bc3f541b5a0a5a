"""A model of one's own, without touching the package.

python scripts/train.py --model=docs/examples/two_tower.py:TwoTower --hidden=64,32 --task=ranking \
    --loss=in_batch_softmax
"""

from dataclasses import dataclass

import tensorflow as tf

import tfrec


class TwoTower(tfrec.Recommender):
    """y^(u, p) = <f(x_u), h(z_p, V^T f_p)>: two small networks over ids and features meet in a dot
    product.
    """

    @dataclass(frozen=True)
    class Settings:
        embedding_dim: int = tfrec.setting(32, "width of both towers", low=1)
        hidden: tuple[int, ...] = tfrec.setting((64,), "hidden layers of both towers", low=1)

    batch_columns = ()
    uses_product_features = True

    def __init__(self, train: tfrec.Interactions, settings: Settings) -> None:
        super().__init__(name="two_tower")
        dim = settings.embedding_dim
        self.users = tfrec.layers.Embedding(train.num_users, dim, side="user")
        self.products = tfrec.layers.Embedding(train.num_products, dim, side="product")
        features = tfrec.layers.FeatureTable(train.catalog.features, side="product")
        self.feature_factors = tfrec.layers.FeatureEmbedding(features, dim)
        self.user_tower = tower(dim, settings.hidden)
        self.product_tower = tower(dim, settings.hidden)

    def score(self, batch, products, training=False):
        user = self.user_tower(self.users(batch["user"]))
        known = tf.concat([self.products(products), self.feature_factors(products)], axis=-1)
        return tfrec.layers.dot(user, tfrec.layers.rowwise(self.product_tower, known))


def tower(dim: int, hidden: tuple[int, ...]) -> tf.keras.Sequential:
    layers = [tf.keras.layers.Dense(width, "relu") for width in hidden]
    return tf.keras.Sequential([*layers, tf.keras.layers.Dense(dim)])
