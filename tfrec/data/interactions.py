"""Interactions: who rated or took what, wherever the rows are; and Split, three parts of them."""

import abc
import copy
import functools
import itertools
from collections.abc import Callable, Collection, Iterator
from typing import ClassVar, Self

import numpy as np
import tensorflow as tf

from tfrec.data.batches import Batches, BatchSettings, everything
from tfrec.data.catalog import Catalog
from tfrec.data.negatives import Negatives
from tfrec.data.targets import RatingStats, Scaling
from tfrec.errors import UsageError
from tfrec.system.progress import bar

Columns = dict[str, np.ndarray]
RECENT_ROWS = 10  # after so many later rows recency has fallen to 1 / e


class Interactions(abc.ABC):
    """Rows of user, product, rating and, where there are timestamps, context.

    Args:
        catalog: The users and products that the rows are of.
    """

    in_memory: ClassVar[bool]
    disliked: "Interactions | None" = None  # rows that are known not to be liked
    # share of later rows that are of users, or products, without rows; None: it is not known
    cold_shares: dict[str, float] | None = None
    task = "rating"  # what a model makes of the rows
    split_by_time = True  # whether the rows that test are later ones

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def __repr__(self) -> str:
        return f"{self.catalog!r}, {len(self):,} rows"

    def for_task(self, task: str) -> Self:
        """Returns the same rows for the "rating" or "ranking" task."""
        rows = copy.copy(self)
        rows.task = task
        return rows

    def cold_share(self, side: str) -> float:
        """Returns the share of later rows that are of a new "user" or "product"; 0 where it is not
        known.
        """
        return self.cold_shares[side] if self.cold_shares else 0.0

    @property
    def num_users(self) -> int:
        """Returns the number of users of the data set, U."""
        return self.catalog.num_users

    @property
    def num_products(self) -> int:
        """Returns the number of products of the data set, P."""
        return self.catalog.num_products

    @abc.abstractmethod
    def __len__(self) -> int:
        """Returns the number of rows."""

    @property
    @abc.abstractmethod
    def timed(self) -> bool:
        """Returns whether the rows have timestamps."""

    @abc.abstractmethod
    def counts(self, side: str) -> np.ndarray:
        """Returns the number of rows of each user or product, int64 [U] or [P].

        Args:
            side: "user" or "product".
        """

    @abc.abstractmethod
    def chunks(self) -> Iterator[Columns]:
        """Yields all rows, some after the others.

        Yields:
            user, product int32 [n], rating f32 [n], context f32 [n, C], day int32 [n] and
            timestamp int64 [n] where there are timestamps, and weight f32 [n] where rows have one.
        """

    def joined(self, others: "Interactions") -> "Interactions":
        """Returns these rows, and those of others behind them; all are in memory."""
        raise NotImplementedError("rows on disk are not joined")

    def rated_from(self, least: float) -> tuple["Interactions", "Interactions"]:
        """Returns the rows that are rated so much or more, and the others; all are in memory."""
        raise NotImplementedError("rows on disk are not divided")

    @abc.abstractmethod
    def users(self) -> np.ndarray:
        """Returns the users with rows, int [n], in rising order."""

    @abc.abstractmethod
    def of_users(self, users: np.ndarray) -> "Interactions":
        """Returns the rows of some users int [n], in memory."""

    @property
    @abc.abstractmethod
    def stats(self) -> RatingStats:
        """Returns mean, deviation and range of the ratings, of all rows and by product."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> int:
        """Returns a number that changes with the rows."""

    @property
    def target_mean(self) -> float:
        """Returns where the scores of a model start: the mean rating, or 0 for ranking."""
        return self.stats.mean if self.task == "rating" else 0.0

    @abc.abstractmethod
    def scaled_mean(self, scaling: Scaling) -> float:
        """Returns the mean of the targets that a scaling makes of the ratings."""

    @abc.abstractmethod
    def training_dataset(
        self, settings: BatchSettings, start: tuple[int, int], slices: tuple[int, int, int]
    ) -> tf.data.Dataset:
        """Returns the batches of Batches.dataset, as (batch, y, weight)."""

    def columns(self) -> Columns:
        """Returns all of `chunks` at once."""
        parts = list(self.chunks())
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def check_recency(self, recency: float | None) -> None:
        """Raises UsageError where the latest rows shall weigh more, and nothing says which."""
        if recency and not self.timed:
            raise UsageError("recency: the rows have no timestamps. Leave it out.")

    def recency_weights(self, recency: float) -> np.ndarray:
        """Returns 1 + recency e^(-i / 10) of each row, where its user has i later ones, f32 [n].

        Rows of the same time weigh alike. The rows have timestamps.
        """
        columns, weights = self.columns(), np.empty(len(self), np.float32)
        order = np.lexsort((columns["timestamp"], columns["user"]))
        user, time = columns["user"][order], columns["timestamp"][order]
        last = np.append((user[1:] != user[:-1]) | (time[1:] != time[:-1]), True)[: len(order)]
        ends = np.flatnonzero(last)  # the last row of each user and time
        end = np.repeat(ends, np.diff(ends, prepend=-1))
        later = np.cumsum(self.counts("user"))[user] - 1 - end
        weights[order] = 1 + recency * np.exp(-later / RECENT_ROWS)
        return weights

    def example(self, reads: Callable[[str], bool] = everything) -> dict[str, tf.Tensor]:
        """Returns a batch of one row, with those columns of a batch that are read."""
        catalog, nobody, first = self.catalog, np.zeros(1, np.int32), np.zeros(1, int)
        batch = {"user": nobody, "product": nobody, "context": catalog.default_context[None]}
        batch["features"] = catalog.features.take(first).dense()
        if self.timed:
            batch["day"] = nobody
        if catalog.user_features.shape[1]:
            batch["user_features"] = catalog.user_features.take(first).dense()
        read = {"user", "product"} | {name for name in batch if reads(name)}
        return {name: tf.constant(batch[name]) for name in batch if name in read}

    def batches(
        self,
        batch_size: int,
        seed: int = 0,
        negatives: Negatives | int | None = None,
        columns: Collection[str] | None = None,
    ) -> Batches:
        """Training batches (batch, y, weight) without end, a pure function of (seed, epoch, step).

        Args:
            batch_size: Rows of a global batch.
            seed: Of the order of rows and the negatives.
            negatives: How many negatives each row gets, or which; then y is 1. None: y is the
                rating and there are no negatives.
            columns: What a batch holds beside user and product, of features, user_features,
                context and day; None: all that there is.

        Example:
            >>> batch, y, weight = next(iter(split.train.batches(1024, columns=())))
        """
        if isinstance(negatives, int):
            negatives = Negatives(negatives)
        return self.batches_of(BatchSettings(batch_size, seed, negatives, columns=columns))

    def batches_of(self, settings: BatchSettings) -> Batches:
        """As batches, with what a Trainer takes from its loss besides."""
        return Batches(len(self), settings, functools.partial(self.training_dataset, settings))


class Split:
    """What is trained on, validated on and tested on."""

    def __init__(self, train: Interactions, validation: Interactions, test: Interactions) -> None:
        self.train, self.validation, self.test = train, validation, test
        self._samples: dict[int, Split] = {}

    def __repr__(self) -> str:
        train, validation, test = (f"{len(part):,}" for part in self.parts())
        rows = f"{train} rows to train, {validation} to validate, {test} to test"
        return f"{self.catalog!r}; {rows}"

    @property
    def catalog(self) -> Catalog:
        """Returns the users, products and features of the data set."""
        return self.train.catalog

    def parts(self) -> tuple[Interactions, Interactions, Interactions]:
        """Returns (train, validation, test)."""
        return self.train, self.validation, self.test

    @functools.cached_property
    def fingerprint(self) -> int:
        """Returns a number that changes with the rows and the features."""
        numbers = [self.catalog.fingerprint, *(part.fingerprint for part in self.parts())]
        return functools.reduce(lambda total, number: (31 * total + number) % 2**32, numbers)

    def sample(self, most: int) -> "Split":
        """Returns all rows, in memory, of the users that metrics are of.

        Args:
            most: At most so many users of validation and as many of test; 0: all. Rows that are in
                memory anyway are all there.
        """
        if self.train.in_memory:
            return self
        if most not in self._samples:
            chosen = [
                choose_users(part.users(), most, self.catalog.num_users)
                for part in (self.validation, self.test)
            ]
            users = np.union1d(*chosen)
            train, validation, test = (part.of_users(users) for part in self.parts())
            if self.train.disliked is not None:
                train.disliked = self.train.disliked.of_users(users)
            self._samples[most] = Split(train, validation, test)
        return self._samples[most]

    def cold_weights(self, side: str) -> np.ndarray:
        """Weight of each trained "user" or "product" in the average that stands for cold ones.

        A cold one is a draw from the catalogue, or one that a row is of and that is like those
        that rows are of: all trained ones weigh alike, or by their rows. The share of the second
        kind is that of the validation rows which are of cold ones.

        Returns:
            f64 [U] or [P]; adds up to 1.
        """
        return mean_weights(self.train.counts(side), self._cold_share(side))

    def _cold_share(self, side: str) -> float:
        if self.train.cold_shares is not None:
            return self.train.cold_shares[side]
        count, asked_for = self.train.counts(side), 0
        for chunk in self.validation.chunks():
            asked_for += int(np.count_nonzero(count[chunk[side]] == 0))
        return asked_for / max(len(self.validation), 1)

    def refitted(self, part: str, positive_from: float | None = None) -> "Split":
        """Returns a split that trains on the rows of another part too, and validates on none; all
        rows are in memory.

        Args:
            part: "validation", or "test": then none are left to test.
            positive_from: Of these rows, those that are rated less are no likes; None: all are
                likes.
        """
        likes, disliked = getattr(self, part), self.train.disliked
        if positive_from is not None and disliked is not None:
            likes, others = likes.rated_from(positive_from)
            disliked = disliked.joined(others)
        train = self.train.joined(likes)
        train.disliked = disliked
        train.cold_shares = {side: self._cold_share(side) for side in ("user", "product")}
        train.split_by_time = self.train.split_by_time
        nobody = self.train.of_users(self.train.users()[:0])
        return Split(train, nobody, nobody if part == "test" else self.test)

    def seen_products(self) -> tuple[np.ndarray, np.ndarray]:
        """Products of each user's rows to train, disliked ones among it, and to validate.

        Returns:
            int32 [n], by user, and where each user's begin, int64 [U + 1].
        """
        parts = [self.train, self.validation]
        if self.train.disliked is not None:
            parts.append(self.train.disliked)
        count = np.sum([part.counts("user") for part in parts], axis=0)
        begin = np.concatenate([[0], np.cumsum(count)])
        products, next_place = np.empty(begin[-1], np.int32), begin[:-1].copy()
        for chunk in progress(itertools.chain(*(part.chunks() for part in parts))):
            order = np.argsort(chunk["user"], kind="stable")
            users, first, sizes = np.unique(
                chunk["user"][order], return_index=True, return_counts=True
            )
            place = np.arange(len(order)) + np.repeat(next_place[users] - first, sizes)
            products[place] = chunk["product"][order]
            next_place[users] += sizes
        return products, begin


def mean_weights(count: np.ndarray, share: float) -> np.ndarray:
    """Returns weights that add up to 1: alike of those that have training rows, and of a share by
    their rows.

    Args:
        count: Training rows of each user or product, [N].
        share: 0 to 1.
    """
    return (1 - share) * (count > 0) / np.count_nonzero(count) + share * count / count.sum()


def choose_users(users: np.ndarray, most: int, num_users: int) -> np.ndarray:
    """At most so many of the users int [n] (0: all), in order.

    Those that come first in one order of all users, so that choices overlap.
    """
    if not most or len(users) <= most:
        return users
    place = np.random.RandomState(0).permutation(num_users)[users]
    return np.sort(users[np.argpartition(place, most)[:most]])


def progress(chunks: Iterator[Columns]) -> Iterator[Columns]:
    """Returns a bar on anything that takes longer than two seconds."""
    yield from bar(chunks, "reading", unit="block", delay=2)
