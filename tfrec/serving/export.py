"""Model -> a SavedModel that takes and returns raw ids, and needs no tfrec to run."""

import os
import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec.data.dataset import Dataset
from tfrec.models.base import Recommender
from tfrec.models.popularity import Popularity


class Server(tf.Module):
    """Owns the variables and the id tables, and the signatures over them.

    Signature `score`: user [B], product [B] raw ids (int64 or string, as in the data), context f32 [B or 0, C] (none: the default
    context) -> {"rating": f32 [B]}: the rating in the data's own units, clipped to its scale; for a ranking task the logit.
    A pair whose user or product has no training row is scored by `fallback`, which is in rating units.
    """

    def __init__(self, model: Recommender, fallback: Popularity, dataset: Dataset, rows: np.ndarray, task: str) -> None:
        """rows: the training rows."""
        super().__init__()
        self._model_variables = [weight.value for weight in model.weights + fallback.weights]
        self._users = _lookup(dataset.user_ids, dataset.user[rows])
        self._products = _lookup(dataset.product_ids, dataset.product[rows])
        self._user_features = tf.Variable(dataset.user_features, trainable=False)
        ids = [tf.TensorSpec([None], _dtype(dataset.user_ids), "user"), tf.TensorSpec([None], _dtype(dataset.product_ids), "product")]
        context = tf.TensorSpec([None, len(dataset.default_context)], tf.float32, name="context")
        low, high = float(dataset.rating[rows].min()), float(dataset.rating[rows].max())

        def score(user: tf.Tensor, product: tf.Tensor, context: tf.Tensor) -> dict[str, tf.Tensor]:
            u, p = self._users.lookup(user), self._products.lookup(product)
            known_u, known_p = tf.maximum(u, 0), tf.maximum(p, 0)
            default = tf.broadcast_to(dataset.default_context, [tf.shape(user)[0], len(dataset.default_context)])
            batch = {"user": known_u, "context": tf.cond(tf.shape(context)[0] == 0, lambda: default, lambda: context)}
            if dataset.user_features.shape[1]:
                batch["user_features"] = tf.gather(self._user_features, known_u)
            rating = model.score_candidates(batch, known_p[:, None])[:, 0]
            if task == "rating":
                rating = rating * tf.gather(dataset.scale, known_p) + tf.gather(dataset.offset, known_p)
            rating = tf.where((u >= 0) & (p >= 0), rating, fallback.of_known(u, p))
            return {"rating": tf.clip_by_value(rating, low, high) if task == "rating" else rating}

        self.score = tf.function(score, input_signature=[*ids, context])


def export(server: Server, folder: Path) -> None:
    """Writes the SavedModel; the folder is whole or not there."""
    draft = folder.with_name(f"{folder.name}.draft-{os.getpid()}")
    tf.saved_model.save(server, str(draft), signatures={"score": server.score})
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _dtype(ids: np.ndarray) -> tf.DType:
    return tf.int64 if np.issubdtype(ids.dtype, np.integer) else tf.string


def _lookup(ids: np.ndarray, known: np.ndarray) -> tf.lookup.StaticHashTable:
    """raw id -> index of those that are `known` (indices), else -1."""
    index = np.unique(known).astype(np.int32)
    keys = ids[index].astype(np.int64) if _dtype(ids) == tf.int64 else ids[index].astype(str)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(index)), -1)
