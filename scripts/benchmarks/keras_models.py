"""The same architectures in Keras' functional form.

What a Keras user would write, the yardstick of the train suite.
"""

import keras
import numpy as np
from keras import layers

from tfrec.data.memory import MemoryInteractions

DIM = 50


class Mean(layers.Layer):
    """Adds the mean of the targets, a weight."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = self.add_weight(shape=(), initializer=keras.initializers.Constant(mean))

    def call(self, score: keras.KerasTensor) -> keras.KerasTensor:
        return score + self.mean


def functional(name: str, dataset: MemoryInteractions, dim: int = DIM) -> keras.Model:
    """mf, ncf or hybrid with the terms of tfrec's defaults. Inputs: see `inputs`; output [B, 1]."""
    user, product = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    features = keras.Input((dataset.catalog.features.shape[1],))
    context = keras.Input((dataset.context.shape[1],))

    def of_user(width: int, start: str = "uniform") -> keras.KerasTensor:
        return layers.Embedding(dataset.num_users, width, start)(user)

    def of_product(width: int, start: str = "uniform") -> keras.KerasTensor:
        return layers.Embedding(dataset.num_products, width, start)(product)

    if name == "mf":
        score = layers.Dot(1)([of_user(dim), of_product(dim)])
    elif name == "ncf":
        cosine = layers.Dot(1, normalize=True)([of_user(dim), of_product(dim)])
        hidden = layers.Dense(dim // 2, "relu")(
            layers.Concatenate()([of_user(dim), of_product(dim)])
        )
        score = layers.Dense(1)(layers.Concatenate()([cosine, hidden]))
    else:
        taste = layers.Dense(dim, use_bias=False)(features)
        interaction = layers.Dot(1)([of_user(dim), layers.Add()([of_product(dim), taste])])
        sides = [layers.Dense(part.shape[1], "relu")(part) for part in (features, context)]
        score = layers.Add()([interaction, layers.Dense(1)(layers.Concatenate()(sides))])
    biased = Mean(float(dataset.rating.mean()))(
        layers.Add()([score, of_user(1, "zeros"), of_product(1, "zeros")])
    )
    return keras.Model(
        [user, product, features, context] if name == "hybrid" else [user, product], biased
    )


def inputs(name: str, dataset: MemoryInteractions) -> list[np.ndarray]:
    """The arrays that `fit` takes.

    Ids [N]; for the hybrid also features [N, F] and context [N, C].
    """
    ids = [dataset.user, dataset.product]
    if name != "hybrid":
        return ids
    return [*ids, dataset.catalog.features.dense()[dataset.product], dataset.context]
