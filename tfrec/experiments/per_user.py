"""What a run's metrics are made of, row by row and user by user: users.npz in its folder.

Runs are compared from it. Rows and users are known by hashes of their raw ids, uint64, which are
the same in every run.

checksum             uint32, of all the others by their names
row_key [n]          of a tested row's user, product and time (a rating run has these three)
row_user [n]         of its user
row_error [n]        f32, predicted - true, in rating units
ranked_key [m]       of a ranked user, their relevant and their masked products; with a candidates
                     file of a line's user and product
hr@10, ndcg@10 ... [m]   f32, every ranking metric at every cut-off
auc [m]              f32, NaN for users all of whose candidates are relevant: they have no AUC, and
                     its mean leaves them out
"""

import io
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from tfrec.errors import TfrecError
from tfrec.evaluation import ranking
from tfrec.evaluation.evaluate import Evaluator, Predictions, Ranking, keys_of
from tfrec.experiments import workdirs

NAME = "users.npz"
# odd numbers, so that no bit is lost; sums and products are modulo 2^64
MIX, RELEVANT, MASKED = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 3))


def metrics(predictions: Predictions, evaluator: Evaluator) -> dict[str, np.ndarray]:
    """Returns the arrays of users.npz, of the predictions on the rows that the evaluator judges."""
    rows, catalog = evaluator.rows, evaluator.catalog
    users, products = map(pd.util.hash_array, (catalog.user_ids, catalog.product_ids))
    result: dict[str, np.ndarray] = {}
    if evaluator.task == "rating":
        times = np.zeros(len(rows), np.int64) if rows.timestamp is None else rows.timestamp
        pairs = users[rows.user] * MIX + products[rows.product]
        predicted = np.clip(predictions.scores, *evaluator.train.stats.range)
        result["row_key"] = _distinct(pairs * MIX + times.astype(np.uint64))
        result["row_user"] = users[rows.user]
        result["row_error"] = (predicted - rows.rating).astype(np.float32)
    ranked = predictions.ranking
    if len(ranked.pairs):
        result["ranked_key"] = _ranked_keys(ranked, evaluator, users, products)
        values = ranking.per_user(ranked.ranks, evaluator.config.k)
        result |= {name: of_users.astype(np.float32) for name, of_users in values.items()}
    return result


def _ranked_keys(
    ranked: Ranking, evaluator: Evaluator, users: np.ndarray, products: np.ndarray
) -> np.ndarray:
    """Returns the ranked_key of each entry of ranking.per_user; users, products: hashes of ids."""
    _, first, entry = np.unique(ranked.ranks.user, return_index=True, return_inverse=True)
    user = ranked.pairs[first, 0]
    keys = users[user] * MIX + ranked.ranks.candidates[first].astype(np.uint64)
    np.add.at(keys, entry, products[ranked.pairs[:, 1]] * RELEVANT)
    if not evaluator.config.candidates_file:
        seen = keys_of(evaluator.seen)
        masked = np.zeros(len(users), np.uint64)
        np.add.at(masked, seen // len(products), products[seen % len(products)] * MASKED)
        keys += masked[user]
    return _distinct(keys)


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Returns the keys, uint64 [n], with 1, 2, ... added to those that stand there again."""
    order = np.argsort(keys, kind="stable")
    place = np.arange(len(keys))
    first = np.r_[True, np.diff(keys[order]) != 0][: len(keys)]
    again = place - np.maximum.accumulate(np.where(first, place, 0))
    result = np.empty_like(keys)
    result[order] = keys[order] + again.astype(np.uint64)
    return result


def save(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes users.npz, whole or not at all."""
    file = io.BytesIO()
    checksum = np.array(_sum(arrays), np.uint32)
    np.savez_compressed(file, allow_pickle=False, **{"checksum": checksum, **arrays})
    workdirs.write(folder / NAME, file.getvalue())


def read(folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of users.npz of a finished run.

    Raises:
        TfrecError: There is no such file, or it is damaged.
    """
    mend = f"Run python scripts/evaluate.py --workdir={folder}, which writes it."
    try:
        with np.load(folder / NAME) as arrays:
            found = dict(arrays)
        if int(found.pop("checksum", -1)) != _sum(found):
            raise ValueError("its checksum is another one")
        return found
    except FileNotFoundError:
        raise TfrecError(f"{folder}: the run has no {NAME}, the metrics by user. {mend}") from None
    except Exception as error:  # zip and numpy have a dozen ways to say it
        raise TfrecError(f"{folder / NAME}: the file is damaged ({error}). {mend}") from None


def _sum(arrays: dict[str, np.ndarray]) -> int:
    """Returns a checksum: zip guards the bytes of each array, but not the list of them."""
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(name.encode() + arrays[name].tobytes(), total)
    return total
