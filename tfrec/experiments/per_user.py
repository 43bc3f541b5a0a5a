"""What a run's figures are made of, user by user: users.npz in its folder, from which runs are
compared.

checksum             uint32, of all the others by their names; runs of older code lack it
rows                 uint32, a checksum of the tested rows and of those that the run had seen
rated_user [n]       raw ids of the users with tested rows (a rating run has these four)
tested [n]           int64, number of their tested rows
squared_error [n]    f64, sums over them, in rating units; so
                     rmse = sqrt(sum(squared_error) / sum(tested))
absolute_error [n]   f64
ranked_user [m]      raw ids of the users with a relevant product; with a candidates file, one entry
                     a line
hr@10, ndcg@10 ... [m]   f32, every ranking metric at every cut-off
auc [m]              f32, NaN for users all of whose candidates are relevant: they have no AUC, and
                     its mean leaves them out
"""

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfrec.data.memory import MemoryInteractions
from tfrec.errors import TfrecError
from tfrec.evaluation import ranking
from tfrec.evaluation.evaluate import Evaluator, Predictions
from tfrec.experiments import workdirs

NAME = "users.npz"


def metrics(predictions: Predictions, evaluator: Evaluator) -> dict[str, np.ndarray]:
    """The arrays of users.npz, of the predictions on the rows that the evaluator judges."""
    rows, catalog = evaluator.rows, evaluator.catalog
    checksum = _checksum(rows, evaluator.seen)
    result: dict[str, np.ndarray] = {"rows": np.array(checksum, np.uint32)}
    if evaluator.task == "rating":
        predicted = np.clip(predictions.scores, *evaluator.train.stats.range).astype(np.float64)
        error = predicted - rows.rating
        users, user = np.unique(rows.user, return_inverse=True)
        sums = {"tested": None, "squared_error": np.square(error), "absolute_error": np.abs(error)}
        result["rated_user"] = catalog.user_ids[users]
        result |= {name: np.bincount(user, values) for name, values in sums.items()}
    ranked = predictions.ranking
    _, first = np.unique(ranked.ranks.user, return_index=True)
    result["ranked_user"] = catalog.user_ids[ranked.pairs[first, 0]]
    if len(first):
        values = ranking.per_user(ranked.ranks, evaluator.config.k)
        result |= {name: of_users.astype(np.float32) for name, of_users in values.items()}
    return result


def save(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes users.npz, whole or not at all."""
    file = io.BytesIO()
    stored = {
        place: values
        for name, array in arrays.items()
        for place, values in _packed(name, array).items()
    }
    np.savez_compressed(
        file, allow_pickle=False, **{"checksum": np.array(_sum(stored), np.uint32), **stored}
    )
    workdirs.write(folder / NAME, file.getvalue())


def read(folder: Path) -> dict[str, np.ndarray]:
    """users.npz of a finished run.

    Raises:
        TfrecError: the run is older than this file, or the file is damaged.
    """
    mend = f"Run python scripts/evaluate.py --workdir={folder}, which writes it."
    try:
        with np.load(folder / NAME) as arrays:
            stored = dict(arrays)
        if int(stored.pop("checksum", _sum(stored))) != _sum(stored):
            raise ValueError("its checksum is another one")
        return _unpacked(stored)
    except FileNotFoundError:
        raise TfrecError(f"{folder}: the run has no {NAME}, the figures by user. {mend}") from None
    except Exception as error:  # zip and numpy have a dozen ways to say it
        raise TfrecError(f"{folder / NAME}: the file is damaged ({error}). {mend}") from None


def _sum(stored: dict[str, np.ndarray]) -> int:
    """zip guards the bytes of each array, but not the list of them."""
    total = 0
    for name in sorted(stored.keys() - {"checksum"}):
        total = zlib.crc32(name.encode() + stored[name].tobytes(), total)
    return total


def _checksum(tested: MemoryInteractions, seen: Sequence[MemoryInteractions]) -> int:
    """Of the rows, in whatever order and parts the seen ones are."""
    total = 0
    for parts in ([tested], seen):
        keys = np.concatenate([part.keys for part in parts])
        rating = np.concatenate([part.rating for part in parts])
        order = np.lexsort((rating, keys))
        total = zlib.crc32(keys[order].tobytes() + rating[order].tobytes() + b"|", total)
    return total


def _packed(name: str, array: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored of an array.

    Of texts their bytes one after the other, and their lengths; numpy's own would all be as long as
    one.
    """
    if array.dtype != object:
        return {name: array}
    texts = [text.encode() for text in array]
    return {
        f"{name}/text": np.frombuffer(b"".join(texts), np.uint8),
        f"{name}/length": np.array([len(text) for text in texts], np.int64),
    }


def _unpacked(stored: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `_packed` was given."""
    arrays = {name: array for name, array in stored.items() if "/" not in name}
    for name in [place.removesuffix("/text") for place in stored if place.endswith("/text")]:
        text, ends = stored[f"{name}/text"].tobytes(), np.cumsum(stored[f"{name}/length"])
        arrays[name] = np.array(
            [
                text[end - length : end].decode()
                for end, length in zip(ends, stored[f"{name}/length"])
            ],
            object,
        )
    return arrays
