"""Evaluator.

A model's metrics on a set of rows. The scores are made in batches on the device, the metrics from
them in numpy.
"""

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tfrec.config import EvaluationConfig
from tfrec.data import pipeline, trained
from tfrec.data.dataset import Dataset
from tfrec.evaluation import ranking, rating, slices
from tfrec.evaluation.candidates import read_candidates
from tfrec.evaluation.fallbacks import SOURCES, Fallbacks
from tfrec.evaluation.ranking import Ranks
from tfrec.models.base import Batch, Recommender
from tfrec.system.machine import cores

ROWS_AT_ONCE = 65_536
USERS_AT_ONCE = 4_096  # with a candidates file
SCORES_AT_ONCE = (
    2_000_000  # of full ranking, by each worker: 8 MB of f32, which a CPU's caches hold
)
USERS_AT_LEAST = 16  # in a block, however many products there are
WORKERS = min(cores(), 8)  # blocks that are ranked side by side


@dataclass(frozen=True)
class Query:
    """A block of users.

    User int [U], context f32 [U, C]; relevant and masked int32 [., 2] hold (position in user,
    product).
    """

    user: np.ndarray
    context: np.ndarray
    relevant: np.ndarray
    masked: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """ranks, and what they are of, pairs int [n, 2] (user, product).

    top: int32 [U, K], the products of the highest score of each ranked user, best first, -1 where
    there are no more; U = 0 with a candidates file.
    """

    ranks: Ranks
    pairs: np.ndarray
    top: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """What one pass over the tested rows gives: scores f32 [n] as of `Evaluator.scores`, what each
    is from (a number in fallbacks.SOURCES, int8 [n]), and the ranking.
    """

    scores: np.ndarray
    source: np.ndarray
    ranking: Ranking


class Evaluator:
    """Scores the tested rows with a model, and ranks products for their users.

    Args: task: what the model's scores are: "rating" (targets, which are taken back to rating
        units) or "ranking". rows: the rows that are tested. fitted: the rows that the model may
        have seen; their products are masked in full ranking, their ratings give the scale.
        trained_on: the rows that it was trained on, which say what is popular and what is cold;
        None: the fitted ones. decode: what the model's scores f32 [...] say, f32 [...], see
        Loss.decode; None: what they are. fallbacks: what answers in the model's place for who and
        what has no training rows; None: the model answers for all.
    """

    def __init__(
        self,
        model: Recommender,
        task: str,
        dataset: Dataset,
        rows: np.ndarray,
        fitted: np.ndarray,
        config: EvaluationConfig,
        trained_on: np.ndarray | None = None,
        decode: Callable[[tf.Tensor], tf.Tensor] | None = None,
        fallbacks: Fallbacks | None = None,
    ) -> None:
        self.model, self.task, self.dataset, self.rows, self.fitted, self.config = (
            model,
            task,
            dataset,
            rows,
            fitted,
            config,
        )
        self.trained = fitted if trained_on is None else trained_on
        self.decode, self.fallbacks = decode or tf.identity, fallbacks
        self.static = config.evaluation_context == "static"
        self._score = tf.function(self._score_rows, reduce_retracing=True)
        self._rank = tf.function(self._rank_products, reduce_retracing=True)
        self._rank_among = tf.function(self._rank_candidates, reduce_retracing=True)

    def outcome(self) -> Outcome:
        """Scores and ranks everything once, for `metrics`, `slices` and pictures."""
        return Outcome(*self._scores_and_sources(), self.ranking())

    def metrics(self, outcome: Outcome | None = None) -> dict[str, float]:
        """All metrics that make sense for the model's task."""
        outcome = outcome or self.outcome()
        ranked = outcome.ranking
        result = self.rating_metrics(outcome.scores) if self.task == "rating" else {}
        reference = rating.reference_metrics(
            self.dataset.user[self.rows], self.dataset.rating[self.rows], outcome.scores
        )
        lists = slices.list_metrics(
            ranked.top, self._count("product"), self.dataset.features, self.config.k
        )
        return result | ranking.metrics(ranked.ranks, self.config.k) | lists | reference

    def slices(self, outcome: Outcome) -> dict[str, dict[str, dict[str, float]]]:
        """{"users" | "products": {slice: metrics}}, rankings at `ranking.headline`."""
        data, ranked, result = self.dataset, outcome.ranking, {}
        predicted = np.clip(outcome.scores, *self._scale()) if self.task == "rating" else None
        for column, name in enumerate(("user", "product")):
            count, of_row, of_rank = (
                self._count(name),
                getattr(data, name)[self.rows],
                ranked.pairs[:, column],
            )
            k = ranking.headline(self.config.k)
            result[f"{name}s"] = slices.metrics(
                count, of_row, data.rating[self.rows], predicted, of_rank, ranked.ranks, k
            )
        if self.fallbacks and self.task == "rating":
            result["answers"] = slices.by_source(
                outcome.source, data.rating[self.rows], outcome.scores, self._scale()
            )
        return result

    def rating_metrics(self, scores: np.ndarray | None = None) -> dict[str, float]:
        """rmse, mae, mape, r2, clipped to the range of the training ratings.

        Scores: what `scores` returns, where it is known already.
        """
        scores = self.scores() if scores is None else scores
        return rating.metrics(self.dataset.rating[self.rows], scores, *self._scale())

    def ranking_metrics(self) -> dict[str, float]:
        """Those that need ranks only."""
        return ranking.metrics(self.ranking().ranks, self.config.k)

    def ranking(self) -> Ranking:
        """Full ranking, or ranking among the candidates of --candidates_file."""
        return self.candidate_ranking() if self.config.candidates_file else self.full_ranking()

    def scores(self) -> np.ndarray:
        """The answer for each row, f32 [n]; ratings in the data's own units."""
        return self._scores_and_sources()[0]

    def _scores_and_sources(self) -> tuple[np.ndarray, np.ndarray]:
        scores, sources = np.zeros(len(self.rows), np.float32), np.zeros(len(self.rows), np.int8)
        for begin, end in _progress(_blocks(len(self.rows), ROWS_AT_ONCE)):
            columns = self._columns(self.rows[begin:end])
            scores[begin:end], sources[begin:end] = self._score(columns, tf.range(end - begin))
        return scores, sources

    def full_ranking(self) -> Ranking:
        """Each relevant product's rank among the products that are not masked.

        Of each user with one, the top of them.
        """
        none = (
            np.zeros((0, self._longest), np.int32),
            np.zeros((0, 2), int),
            np.zeros(0),
            np.zeros(0, int),
            np.zeros(0, int),
        )
        with ThreadPoolExecutor(
            WORKERS
        ) as pool:  # TensorFlow and numpy leave Python's lock while they work
            blocks = list(_progress(pool.map(self._rank_block, self._queries), len(self._queries)))
        top, pairs, ranks, tied, candidates = (
            np.concatenate(parts) for parts in zip(none, *blocks)
        )
        return Ranking(Ranks(pairs[:, 0], ranks, candidates, tied), pairs, top)

    def _rank_block(self, query: Query) -> tuple[np.ndarray, ...]:
        """(top [U, K], and of each relevant product its pair, rank, number of tied products and
        number of candidates).
        """
        position, product = query.relevant.T
        left = self.dataset.num_products - np.bincount(
            query.masked[:, 0], minlength=len(query.user)
        )
        scores, top = self._rank(self._batch(query), tf.constant(query.masked))
        pairs = np.stack([query.user[position], product], axis=1)
        return top.numpy(), pairs, *_ranks(scores.numpy(), query.relevant), left[position]

    def candidate_ranking(self) -> Ranking:
        """Each test product's rank among itself and its negatives in --candidates_file.

        Each line counts as a user.
        """
        users, products = read_candidates(Path(self.config.candidates_file), self.dataset)
        context = self._context_of_rows(users, products[:, 0])
        none = np.zeros((0, 2), np.int32)
        blocks = []
        for block in _progress(_blocks(len(users), USERS_AT_ONCE)):
            part = slice(*block)
            blocks.append(
                self._rank_among(
                    self._batch(Query(users[part], context[part], none, none)),
                    tf.constant(products[part]),
                )
            )
        rank, tied = np.concatenate(blocks, axis=1)
        ranks = Ranks(
            np.arange(len(users)), rank, np.full(len(users), products.shape[1]), tied.astype(int)
        )
        return Ranking(
            ranks, np.stack([users, products[:, 0]], axis=1), np.zeros((0, self._longest), np.int32)
        )

    def _score_rows(
        self, columns: dict[str, tf.Tensor], index: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        batch = pipeline.gather(columns, index)
        product = batch["product"]
        scores = self.decode(self.model(batch))
        if self.task == "rating":
            scores = scores * tf.gather(self.dataset.scale, product) + tf.gather(
                self.dataset.offset, product
            )
        if not self.fallbacks:
            return scores, tf.zeros(tf.shape(scores), tf.int8)
        scores, source = self.fallbacks.score(self.model, batch, batch["user"], product, scores)
        return scores, tf.cast(
            tf.argmax(tf.equal(source[:, None], tf.constant(SOURCES)), axis=1), tf.int8
        )

    @property
    def _longest(self) -> int:
        return min(max(self.config.k), self.dataset.num_products)

    def _count(self, name: str) -> np.ndarray:
        """Training rows of each "user" or "product", int [.]."""
        return trained.counts(self.dataset, self.trained, name)

    def _scale(self) -> tuple[float, float]:
        """The least and the greatest training rating, to which the export clips, too."""
        return trained.rating_range(self.dataset, self.trained)

    def _rank_products(self, batch: Batch, masked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores [U, P], -inf where masked, and the products of the highest."""
        scores = self.decode(self.model.score_products(batch))
        if self.task == "rating":
            scores = scores * self.dataset.scale + self.dataset.offset
        if self.fallbacks:
            scores, *_ = self.fallbacks.rank(self.model, batch, batch["user"], scores)
        scores = tf.tensor_scatter_nd_update(scores, masked, tf.fill(tf.shape(masked)[:1], -np.inf))
        best, top = tf.math.top_k(scores, self._longest)
        return scores, tf.where(tf.math.is_inf(best), -1, top)

    def _rank_candidates(self, batch: Batch, products: tf.Tensor) -> tf.Tensor:
        scores = self.decode(self.model.score_candidates(batch, products))
        if self.task == "rating":
            scores = scores * tf.gather(self.dataset.scale, products) + tf.gather(
                self.dataset.offset, products
            )
        if self.fallbacks:
            scores, *_ = self.fallbacks.rank(self.model, batch, batch["user"], scores, products)
        return _rank(scores[:, 0], scores)

    def _batch(self, query: Query) -> Batch:
        batch = {
            "user": tf.constant(query.user, tf.int32),
            "context": tf.constant(query.context, tf.float32),
        }
        if self.dataset.user_features.shape[1]:
            batch["user_features"] = tf.constant(self.dataset.user_features[query.user])
        return batch

    def _columns(self, rows: np.ndarray) -> dict[str, tf.Tensor]:
        columns = self.dataset.columns(rows)
        if self.static:
            columns["context"] = np.broadcast_to(
                self.dataset.default_context, columns["context"].shape
            )
            columns.pop("day", None)  # serving does not know it either
        return {name: tf.constant(column) for name, column in columns.items()} | self._tables

    @cached_property
    def _tables(self) -> dict[str, tf.Tensor]:
        return pipeline.tables(self.dataset)

    @cached_property
    def _queries(self) -> list[Query]:
        """The users with relevant rows, in blocks of about SCORES_AT_ONCE floats."""
        data, threshold = self.dataset, self.config.relevance_threshold
        relevant = (
            self.rows if threshold is None else self.rows[data.rating[self.rows] >= threshold]
        )
        users = trained.some(
            np.unique(data.user[relevant]), self.config.ranked_users, data.num_users
        )
        ranked = np.isin(np.arange(data.num_users), users)
        seen = self._keys(self.fitted[ranked[data.user[self.fitted]]])
        wanted = self._keys(relevant[ranked[data.user[relevant]]])
        wanted = np.setdiff1d(
            wanted, seen, assume_unique=True
        )  # what he had before is masked, whatever it is now
        users = np.unique(wanted // data.num_products)
        seen = seen[np.isin(seen // data.num_products, users)]
        size = max(SCORES_AT_ONCE // (data.num_products * self.model.width), USERS_AT_LEAST)
        cuts = np.searchsorted(wanted, users[size::size] * data.num_products)
        return [self._query(keys, seen) for keys in np.split(wanted, cuts) if len(keys)]

    def _query(self, wanted: np.ndarray, seen: np.ndarray) -> Query:
        """wanted, seen: sorted keys."""
        products, pairs = self.dataset.num_products, []
        users = np.unique(wanted // products)
        seen = seen[
            slice(*np.searchsorted(seen, [users[0] * products, (users[-1] + 1) * products]))
        ]
        for keys in (wanted, seen):
            pairs.append(
                np.stack(
                    [np.searchsorted(users, keys // products), keys % products], axis=1
                ).astype(np.int32)
            )
        return Query(users, self._context_of(users), *pairs)

    def _context_of(self, users: np.ndarray) -> np.ndarray:
        """The context in which a user is recommended to.

        That of his first tested row, or the static one. f32 [U, C].
        """
        data = self.dataset
        if self.static:
            return np.broadcast_to(data.default_context, (len(users), len(data.default_context)))
        return data.context[self._first_rows[users]]

    def _context_of_rows(self, users: np.ndarray, products: np.ndarray) -> np.ndarray:
        """The contexts of the tested rows of pairs int [n].

        The static one where there is no such row. f32 [n, C].
        """
        data, pairs = self.dataset, users.astype(np.int64) * self.dataset.num_products + products
        context = np.repeat(data.default_context[None], len(pairs), axis=0)
        if self.static or not len(self.rows):
            return context
        keys = data.user[self.rows].astype(np.int64) * data.num_products + data.product[self.rows]
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(keys[order], pairs)
        found = (at < len(keys)) & (keys[order[np.minimum(at, len(keys) - 1)]] == pairs)
        context[found] = data.context[self.rows[order[at[found]]]]
        return context

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """Each user's first tested row, int [U]; 0 where there is none."""
        data, first = self.dataset, np.zeros(self.dataset.num_users, np.int64)
        rows = (
            self.rows
            if data.timestamp is None
            else self.rows[np.argsort(data.timestamp[self.rows], kind="stable")]
        )
        first[data.user[rows[::-1]]] = rows[
            ::-1
        ]  # of several numbers for a place the last one stays
        return first

    def _keys(self, rows: np.ndarray) -> np.ndarray:
        """The rows' (user, product) as one number each: sorted, each once."""
        return np.unique(
            self.dataset.user[rows].astype(np.int64) * self.dataset.num_products
            + self.dataset.product[rows]
        )


def nothing_to_rank(
    dataset: Dataset, rows: np.ndarray, fitted: np.ndarray, threshold: float | None
) -> str:
    """Why no ranking metric can be made of the rows, for users whose `fitted` rows are masked.

    "" where some can.
    """
    relevant = rows if threshold is None else rows[dataset.rating[rows] >= threshold]
    if not len(relevant):
        ratings = dataset.rating[rows]
        same = (
            f"; every rating is {ratings[0]:g}"
            if len(rows) and (ratings == ratings[0]).all()
            else ""
        )
        return (
            f"none is rated {threshold:g} or more (--relevance_threshold){same}"
            if len(rows)
            else "there are none"
        )
    keys, seen = (
        dataset.user[part].astype(np.int64) * dataset.num_products + dataset.product[part]
        for part in (relevant, fitted)
    )
    return (
        ""
        if not np.isin(keys, seen).all()
        else "all are products that the users had in training already"
    )


def _progress(blocks: Iterable, total: int | None = None) -> Iterable:
    """A bar on anything that takes longer than two seconds."""
    return tqdm(
        blocks,
        "evaluating",
        total,
        unit="block",
        delay=2,
        leave=False,
        disable=None,
        dynamic_ncols=True,
    )


def _blocks(count: int, size: int) -> list[tuple[int, int]]:
    """0 .. count - 1 in pieces (begin, end)."""
    return [(begin, min(begin + size, count)) for begin in range(0, count, size)]


def _ranks(scores: np.ndarray, relevant: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the relevant products, int [n, 2] (row, product) by row, among their rows of scores
    [U, P]; as in `_rank`.

    One sort a row and two searches a product; comparing each product with its row would take n
    times P steps.
    """
    score, products = scores[relevant[:, 0], relevant[:, 1]], scores.shape[1]
    ordered = np.sort(np.where(np.isnan(scores), -np.inf, scores), axis=1)
    lower, not_higher = np.empty(len(score), int), np.empty(len(score), int)
    ends = np.searchsorted(relevant[:, 0], np.arange(len(scores) + 1))
    for row, (first, last) in enumerate(itertools.pairwise(ends)):
        lower[first:last] = ordered[row].searchsorted(score[first:last])
        not_higher[first:last] = ordered[row].searchsorted(score[first:last], "right")
    tied = np.maximum(not_higher - lower, 1)
    return np.where(np.isnan(score), np.nan, products - not_higher + (tied + 1) / 2), tied


def _rank(score: tf.Tensor, among: tf.Tensor) -> tf.Tensor:
    """Of score [n] among the rows of `among` [n, P], in which it stands once itself: its rank, ties
    counted half, and how many are tied, itself counted; f64 [2, n]. The rank of NaN is NaN.
    """
    higher = tf.math.count_nonzero(among > score[:, None], axis=1, dtype=tf.int32)
    tied = tf.cast(
        tf.math.count_nonzero(tf.equal(among, score[:, None]), axis=1, dtype=tf.int32), tf.float64
    )
    rank = tf.cast(higher, tf.float64) + (tied + 1) / 2
    return tf.stack([tf.where(tf.math.is_nan(score), tf.constant(np.nan, tf.float64), rank), tied])
