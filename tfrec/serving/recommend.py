"""`tfrec.export` and `tfrec.recommend`: what a trained model answers, in raw ids."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import tensorflow as tf

from tfrec.data.catalog import Catalog
from tfrec.data.interactions import Split
from tfrec.errors import UsageError, nearest
from tfrec.models.base import Recommender
from tfrec.serving import export as serving
from tfrec.serving import ids
from tfrec.system import outputs

Ids: TypeAlias = Any  # an id, or a list of them
History: TypeAlias = Sequence[Any] | Mapping[Any, float] | None


def export(model: Recommender, split: Split, folder: str | Path) -> None:
    """Writes a SavedModel that takes and returns raw ids, and needs no tfrec to run.

    Its signatures are score, recommend, similar, recommend_for_history and, where the data have
    attributes of users, recommend_by_attributes.

    Args:
        model: A trained model.
        split: What it was trained on. Products of its rows to train and to validate are not
            recommended to their users.
        folder: New, empty, or an older export. It is whole or not there.

    Raises:
        UsageError: The folder holds something else.
        TfrecError: It cannot be written.

    Example:
        >>> tfrec.export(model, split, "my_model")
        >>> server = tf.saved_model.load("my_model").signatures["score"]
    """
    outputs.check_export(Path(folder))
    serving.export(serving.ServingModule(model, split), Path(folder))


def recommend(
    model: Recommender,
    split: Split,
    user: Ids = None,
    k: int = 10,
    history: History = None,
) -> pd.DataFrame:
    """Returns the best products for a user, or for several, by raw ids.

    Products that a user has in training or validation are left out.

    Args:
        model: A trained model.
        split: What it was trained on.
        user: Raw id of a user, or a list of them.
        k: How many products for each.
        history: In place of `user`, what somebody who is not in the data likes: raw ids of
            products, or {id: rating}.

    Returns:
        A frame with product, title, score and source (model, fold_in, demographic or popularity),
        best first; for a list of users, with their id in the column user.

    Raises:
        UsageError: A user or a product is not in the data.

    Example:
        >>> tfrec.recommend(model, split, user=42, k=5)
        >>> tfrec.recommend(model, split, history={1: 5.0, 296: 4.5})
    """
    return answer(serving.ServingModule(model, split), split.catalog, user, k, history)


def answer(
    server: serving.ServingModule, catalog: Catalog, user: Ids, k: int, history: History
) -> pd.DataFrame:
    """As recommend, which it serves; server: of the model."""
    if (user is None) == (history is None):
        raise UsageError("user or history: one of them is needed.")
    if k < 1:
        raise UsageError(f"k={k}: expected at least 1.")
    if history is not None:
        return _frame(_for_history(server, catalog, history, k))
    many = isinstance(user, list | tuple | np.ndarray | pd.Series)
    users = _known("user", list(user) if many else [user], catalog.user_ids)
    found = server.recommend(ids.constant(users), tf.constant(k), *_open(catalog), True)
    frame = _frame(found)
    if many:
        frame.insert(0, "user", np.repeat(users, found["score"].shape[1])[frame.index])
    return frame.reset_index(drop=True)


def _for_history(
    server: serving.ServingModule, catalog: Catalog, history: Any, k: int
) -> dict[str, tf.Tensor]:
    products = _known("history", list(history), catalog.product_ids)
    ratings = [list(history.values())] if isinstance(history, Mapping) else []
    return server.recommend_for_history(
        ids.constant(products)[None],
        tf.constant(np.array(ratings, np.float32).reshape(-1, len(products))),
        tf.constant(k),
        *_open(catalog),
    )


def _open(catalog: Catalog) -> tuple[tf.Tensor, ...]:
    """Returns the default context, no time, nothing excluded, everything allowed."""
    product = ids.dtype(catalog.product_ids)
    context = tf.zeros([0, len(catalog.default_context)])
    return context, tf.zeros([0], tf.int64), tf.zeros([0, 0], product), tf.zeros([0], product)


def _known(argument: str, wanted: list[Any], known: np.ndarray) -> np.ndarray:
    """Returns the raw ids as the data have them."""
    index = pd.Index(known)
    found = index.get_indexer(
        pd.Index(wanted, dtype=known.dtype if known.dtype == object else None)
    )
    if not len(wanted):
        raise UsageError(f"{argument}: the list is empty.")
    if (found < 0).any():
        lacking = wanted[int(np.flatnonzero(found < 0)[0])]
        side = "user" if argument == "user" else "product"
        near = nearest(str(lacking), map(str, known.tolist()))
        raise UsageError(f"{argument}={lacking!r}: there is no such {side} in the data.{near}")
    return known[found]


def _frame(answer: dict[str, tf.Tensor]) -> pd.DataFrame:
    """One line a recommendation; the index is its place among all positions."""
    width = answer["score"].shape[1]
    columns = {
        name: _decoded(answer[name].numpy().ravel()) for name in ("product", "title", "score")
    }
    source = np.repeat(_decoded(answer["source"].numpy()), width)
    frame = pd.DataFrame(columns | {"source": source})
    return frame[np.isfinite(frame["score"])]


def _decoded(values: np.ndarray) -> np.ndarray:
    if values.dtype != object:
        return values
    return np.array([value.decode() for value in values], object)
