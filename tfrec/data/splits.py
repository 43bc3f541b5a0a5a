"""Which rows train, validate and test.

One rule cuts twice: the test rows from all rows, then the validation rows from what is left.
"""

from dataclasses import dataclass

import numpy as np

from tfrec.config import DataConfig
from tfrec.data.dataset import Dataset
from tfrec.data.tables import PARTS
from tfrec.errors import UsageError


@dataclass(frozen=True)
class Rows:
    """Row numbers of a Dataset, int64, each in ascending order."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def default(dataset: Dataset) -> str:
    """The split that --split=auto stands for."""
    return "random" if dataset.timestamp is None else "user_temporal"


def split(dataset: Dataset, config: DataConfig) -> Rows:
    """The rows of config.split ("auto" is resolved by the caller with `default`).

    Raises:
        UsageError: the data lack what the split needs, or a part that must have rows has none.
    """
    every = np.arange(len(dataset))
    if config.split == "files":
        assert dataset.part is not None
        train, validation, test = (every[dataset.part == part] for part in range(len(PARTS)))
    elif config.split == "kfold":
        train, test = _kfold(every, config)
    else:
        train, test = _cut(config.split, dataset, every, config.test_fraction, config.split_seed)
    if not config.validation_file:
        rule = config.split if config.split in RULES else "random"
        rule = "last_rows" if config.validation_rule == "last_rows" else rule
        train, validation = _cut(rule, dataset, train, config.validation_fraction, config.split_seed + 1)
    if not len(train) or not len(test):
        raise UsageError(f"--split={config.split}: {len(train):,} training and {len(test):,} test rows; both need some.")
    return Rows(np.sort(train), np.sort(validation), np.sort(test))


def _cut(rule: str, dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(kept, held out)."""
    if fraction == 0 or not len(rows):
        return rows, rows[:0]
    return RULES[rule](dataset, rows, fraction, seed)


def _random(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first floor(fraction n) of the permuted rows are held out."""
    order = np.random.RandomState(seed % 2**32).permutation(len(rows))
    count = int(fraction * len(rows) + 1e-9)
    return rows[order[count:]], rows[order[:count]]


def _kfold(rows: np.ndarray, config: DataConfig) -> tuple[np.ndarray, np.ndarray]:
    """One shuffle, cut into folds; the first n mod folds of them have one row more (as scikit-learn and Surprise do)."""
    order = np.random.RandomState(config.split_seed).permutation(len(rows))
    sizes = np.full(config.folds, len(rows) // config.folds)
    sizes[: len(rows) % config.folds] += 1
    start = sizes[: config.fold].sum()
    test = order[start : start + sizes[config.fold]]
    return np.setdiff1d(rows, rows[test]), rows[test]


def _temporal(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first floor((1 - fraction) n) rows by (timestamp, file order) are kept."""
    order = rows[np.argsort(_time(dataset)[rows], kind="stable")]
    count = int((1 - fraction) * len(rows) + 1e-9)
    return order[:count], order[count:]


def _user_temporal(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each user's n rows by (timestamp, file order), the first floor((1 - fraction) n) are kept."""
    order, position, count = _by_user(dataset, rows)
    kept = position < np.floor((1 - fraction) * count + 1e-9)
    return order[kept], order[~kept]


def _leave_one_out(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Each user's latest row is held out, unless it is his only one; the fraction does not matter."""
    order, position, count = _by_user(dataset, rows)
    last = (position == count - 1) & (count > 1)
    return order[~last], order[last]


def _by_product(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The last `fraction` of the product columns that these rows may lie in are held out (the reference system's split)."""
    columns = dataset.num_products if len(rows) == len(dataset) else int(dataset.product[rows].max()) + 1
    held_out = dataset.product[rows] >= int((1 - fraction) * columns + 1e-9)
    return rows[~held_out], rows[held_out]


def _cold(ids: np.ndarray, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All rows of a random `fraction` of the ids are held out."""
    known = np.unique(ids[rows])
    chosen = np.random.RandomState(seed % 2**32).permutation(known)[: int(fraction * len(known) + 1e-9)]
    held_out = np.isin(ids[rows], chosen)
    return rows[~held_out], rows[held_out]


def _last_rows(dataset: Dataset, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The last rows in (user, product) order are held out, as Keras' validation_split does on the reference's table."""
    order = rows[np.lexsort((dataset.product[rows], dataset.user[rows]))]
    count = int((1 - fraction) * len(rows) + 1e-9)
    return order[:count], order[count:]


RULES = {
    "random": _random,
    "temporal": _temporal,
    "user_temporal": _user_temporal,
    "leave_one_out": _leave_one_out,
    "by_product": _by_product,
    "cold_user": lambda dataset, rows, fraction, seed: _cold(dataset.user, rows, fraction, seed),
    "cold_product": lambda dataset, rows, fraction, seed: _cold(dataset.product, rows, fraction, seed),
    "last_rows": _last_rows,
}


def _time(dataset: Dataset) -> np.ndarray:
    if dataset.timestamp is None:
        raise UsageError("--split: the data have no timestamps. Take random, by_product, cold_user, cold_product, kfold or files.")
    return dataset.timestamp


def _by_user(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by (user, timestamp, file order), each one's position among its user's rows, and the user's number of rows."""
    order = rows[np.lexsort((rows, _time(dataset)[rows], dataset.user[rows]))]
    user = dataset.user[order]
    _, first, counts = np.unique(user, return_index=True, return_counts=True)
    position = np.arange(len(order)) - np.repeat(first, counts)
    return order, position, np.repeat(counts, counts)
