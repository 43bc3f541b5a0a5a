"""What rows say, those of training above all, wherever they are: in the Dataset, or on disk
(dataset.stored, see blocks.py).

`rows` are the training rows of the Dataset, where no other `part` is named. Where all lie on disk
these are those of some users alone, and what is said here is of all: they are read block by block,
and held in memory at once only by what asks for `columns`.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from tfrec.data.dataset import Dataset

Chunks = Callable[[], Iterator[dict[str, np.ndarray]]]


def size(dataset: Dataset, rows: np.ndarray, part: str = "train") -> int:
    """How many there are; part: which of tables.PARTS the rows are."""
    return dataset.stored.size(part) if dataset.stored else len(rows)


def counts(dataset: Dataset, rows: np.ndarray, side: str) -> np.ndarray:
    """Training rows of each "user" or "product", int64 [.]."""
    if dataset.stored:
        return dataset.stored.user_counts if side == "user" else dataset.stored.product_counts
    return np.bincount(getattr(dataset, side)[rows], minlength=len(getattr(dataset, f"{side}_ids")))


def typical(dataset: Dataset, rows: np.ndarray, validation: np.ndarray, side: str) -> np.ndarray:
    """What each trained "user" or "product" counts in the average that stands for the untrained
    ones, f64 [.]; adds up to 1.

    An untrained one is a draw from the catalogue, or one that a row is of and that is like those
    that rows are of: all trained ones count alike, or by their rows. The share of the second kind
    is that of the validation rows which are of untrained ones; no such rows: 0.
    """
    count = counts(dataset, rows, side)
    if dataset.stored:
        asked_for = dataset.stored.untrained[side]
    else:
        asked_for = (
            float(np.mean(count[getattr(dataset, side)[validation]] == 0))
            if len(validation)
            else 0.0
        )
    return (1 - asked_for) * (count > 0) / np.count_nonzero(count) + asked_for * count / count.sum()


def chunks(dataset: Dataset, rows: np.ndarray, part: str = "train") -> Chunks:
    """What yields, each time from the start, user, product int32 [n], y (targets) f32 [n], rating
    f32 [n], context f32 [n, C], and day int32 [n] where there are timestamps. part: as of
    `size`.
    """

    def in_memory() -> Iterator[dict[str, np.ndarray]]:
        yield dataset.columns(rows) | {"rating": dataset.rating[rows], "y": dataset.targets(rows)}

    def on_disk() -> Iterator[dict[str, np.ndarray]]:
        assert dataset.stored
        for columns in dataset.stored.chunks(part):
            yield columns | {"y": dataset.scaled(columns["rating"], columns["product"])}

    return on_disk if dataset.stored else in_memory


def columns(dataset: Dataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """All of `chunks` at once."""
    parts = list(chunks(dataset, rows)())
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rating_range(dataset: Dataset, rows: np.ndarray) -> tuple[float, float]:
    """The least and the greatest rating; from disk those of training, whatever the rows."""
    if dataset.stored:
        return dataset.stored.rating_range
    rating = dataset.rating[rows]
    return float(rating.min(initial=np.inf)), float(rating.max(initial=-np.inf))


def target_range(dataset: Dataset, rows: np.ndarray) -> tuple[float, float]:
    """The least and the greatest target."""
    if dataset.stored:
        return dataset.stored.target_range
    targets = dataset.targets(rows)
    return float(targets.min()), float(targets.max())


def mean_target(dataset: Dataset, rows: np.ndarray) -> float:
    return dataset.stored.mean if dataset.stored else float(dataset.targets(rows).mean())


def seen(
    dataset: Dataset, train: np.ndarray, validation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Products of each user's rows to train and to validate.

    Int32 [n] by user, and where each user's begin, int64 [U + 1].
    """
    of_train, of_validation = chunks(dataset, train), chunks(dataset, validation, "validation")
    count = counts(dataset, train, "user").copy()
    for chunk in of_validation():
        count += np.bincount(chunk["user"], minlength=dataset.num_users)
    begin = np.concatenate([[0], np.cumsum(count)])
    products, next_place = np.empty(begin[-1], np.int32), begin[:-1].copy()
    for chunk in itertools.chain(_progress(of_train), of_validation()):
        order = np.argsort(chunk["user"], kind="stable")
        users, first, sizes = np.unique(chunk["user"][order], return_index=True, return_counts=True)
        place = np.arange(len(order)) + np.repeat(next_place[users] - first, sizes)
        products[place] = chunk["product"][order]
        next_place[users] += sizes
    return products, begin


def some(users: np.ndarray, most: int, num_users: int) -> np.ndarray:
    """At most so many of the users int [n] (0.

    All), in order: those that come first in one order of all, so that choices overlap.
    """
    if not most or len(users) <= most:
        return users
    place = np.random.RandomState(0).permutation(num_users)[users]
    return np.sort(users[np.argpartition(place, most)[:most]])


def _progress(made: Chunks) -> Iterator[dict[str, np.ndarray]]:
    yield from tqdm(
        made(), "reading", unit="block", delay=2, leave=False, disable=None, dynamic_ncols=True
    )
