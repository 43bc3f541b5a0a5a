"""Evaluator.

A model's metrics on a set of rows. The scores are made in batches on the device, the metrics from
them in numpy.
"""

import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from tfrec.data.batches import feature_tables, with_features
from tfrec.data.interactions import Split, choose_users
from tfrec.data.memory import MemoryInteractions, in_memory
from tfrec.evaluation import ranking, rating, slices
from tfrec.evaluation.candidates import draw_candidates, read_candidates
from tfrec.evaluation.fallbacks import SOURCES, Fallbacks
from tfrec.evaluation.ranking import Ranks
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.models.base import Batch, Recommender
from tfrec.system.graph import compiled
from tfrec.system.machine import cores
from tfrec.system.progress import bar

ROWS_AT_ONCE = 65_536
FLOATS_AT_ONCE = 30_000_000  # of the rows that are scored: 120 MB
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
class Predictions:
    """What one pass over the tested rows gives.

    Args:
        rows: What was tested, with user, product and rating [n].
        scores: As of `Evaluator.scores`, f32 [n].
        source: What each score is from, a number in fallbacks.SOURCES, int8 [n].
        ranking: Of all products; empty for the rating task without full_ranking.
    """

    rows: MemoryInteractions
    scores: np.ndarray
    source: np.ndarray
    ranking: Ranking


class Evaluator:
    """Scores the rows of one part of a split with a model, and ranks products for their users.

    Args:
        model: A trained model.
        split: What the model was trained on, and what it is judged on.
        config: How.
        part: "test", or "validation", which knows nothing of the test rows. The products that the
            users have in earlier parts are masked in full ranking; with a candidates file, rows
            that validate are ranked among as many drawn negatives as its lines have.
        task: "rating" or "ranking", which metrics there are of; None: the model's.
        fallbacks: What answers in the model's place for users and products without training rows;
            None: the model answers for all.
    """

    def __init__(
        self,
        model: Recommender,
        split: Split,
        config: EvaluationSettings,
        part: str = "test",
        task: str | None = None,
        fallbacks: Fallbacks | None = None,
    ) -> None:
        self.model, self.split, self.config, self.part = model, split, config, part
        self.task = task or model.task
        self.catalog, self.train = split.catalog, split.train
        train, validation, test = in_memory(split.sample(config.ranked_users))
        self.rows = validation if part == "validation" else test
        seen = [train, train.disliked, None if part == "validation" else validation]
        self.seen = [rows for rows in seen if rows is not None and config.mask_seen]
        self._taken = [rows for rows in (train, train.disliked, validation) if rows is not None]
        self.fallbacks = fallbacks
        self.static = config.evaluation_context == "static"
        self._sums: dict[str, tf.Variable] = {}  # over the features of all products
        self._score = compiled(self._score_rows)
        self._rank = compiled(self._rank_products)
        self._rank_among = compiled(self._rank_candidates)

    def predictions(self) -> Predictions:
        """Scores and ranks everything once, for `metrics`, `slices` and pictures."""
        ranked = self.ranking() if self.config.ranks(self.task) else self._ranking_of([])
        return Predictions(self.rows, *self._scores_and_sources(), ranked)

    def metrics(self, predictions: Predictions | None = None) -> dict[str, float]:
        """Returns all metrics that make sense for the model's task."""
        predictions = predictions or self.predictions()
        ranked, rows, k = predictions.ranking, self.rows, self.config.k
        result = self.rating_metrics(predictions.scores) if self.task == "rating" else {}
        reference = rating.reference_metrics(rows.user, rows.rating, predictions.scores)
        lists = slices.beyond_accuracy(
            ranked.top, self.train.counts("product"), self.catalog.features, k
        )
        return result | ranking.metrics(ranked.ranks, k) | lists | reference

    def slices(self, predictions: Predictions) -> dict[str, dict[str, dict[str, float]]]:
        """Returns {"users" | "products": {slice: metrics}}, rankings at `ranking.primary_k`."""
        rows, ranked, result = self.rows, predictions.ranking, {}
        k = ranking.primary_k(self.config.k)
        predicted = np.clip(predictions.scores, *self._range) if self.task == "rating" else None
        for column, (side, of_row) in enumerate((("user", rows.user), ("product", rows.product))):
            counts, of_rank = self.train.counts(side), ranked.pairs[:, column]
            result[f"{side}s"] = slices.metrics(
                counts, of_row, rows.rating, predicted, of_rank, ranked.ranks, k
            )
        if self.fallbacks and self.task == "rating":
            result["answers"] = slices.by_source(
                predictions.source, rows.rating, predictions.scores, self._range
            )
        return result

    def rating_metrics(self, scores: np.ndarray | None = None) -> dict[str, float]:
        """Returns rmse, mae, mape and r2, clipped to the range of the training ratings, and fcp.

        Args:
            scores: What `scores` returns, where it is known already.
        """
        scores = self.scores() if scores is None else scores
        errors = rating.metrics(self.rows.rating, scores, *self._range)
        return errors | rating.concordance(self.rows.user, self.rows.rating, scores)

    def ranking_metrics(self) -> dict[str, float]:
        """Those that need ranks only."""
        return ranking.metrics(self.ranking().ranks, self.config.k)

    def metric_names(self) -> list[str]:
        """Names of all metrics that there can be."""
        names = rating.NAMES if self.task == "rating" else ()
        return [*names, *ranking.names(self.config.k)]

    def ranking(self) -> Ranking:
        """Full ranking, or with --candidates_file ranking among candidates."""
        return self.candidate_ranking() if self.config.candidates_file else self.full_ranking()

    def scores(self) -> np.ndarray:
        """Returns the answer for each row, f32 [n]; ratings in the data's own units."""
        return self._scores_and_sources()[0]

    def _scores_and_sources(self) -> tuple[np.ndarray, np.ndarray]:
        count, tables = len(self.rows), feature_tables(self.catalog, self.model.reads)
        scores, sources = np.zeros(count, np.float32), np.zeros(count, np.int8)
        columns = self.rows.batch_columns()
        if self.static:
            default = self.catalog.default_context
            columns["context"] = np.broadcast_to(default, columns["context"].shape)
            columns.pop("day", None)  # serving does not know it either
        models = [self.model, *(self.fallbacks.models() if self.fallbacks else ())]
        floats = max(model.floats_per_row for model in models)
        rows_at_once = min(max(FLOATS_AT_ONCE // floats, USERS_AT_LEAST), ROWS_AT_ONCE)
        for begin, end in _progress(_blocks(count, rows_at_once)):
            batch = {name: tf.constant(column[begin:end]) for name, column in columns.items()}
            scores[begin:end], sources[begin:end] = self._score(batch, tables)
        return scores, sources

    def full_ranking(self) -> Ranking:
        """Returns each relevant product's rank among the products that are not masked.

        Of each user with one, the top of them.
        """
        return self._ranking_of(self._queries)

    def _ranking_of(self, queries: list[Query]) -> Ranking:
        none = (
            np.zeros((0, self._longest), np.int32),
            np.zeros((0, 2), int),
            np.zeros(0),
            np.zeros(0, int),
            np.zeros(0, int),
        )
        if queries:
            self._sum_features()
        # TensorFlow and numpy leave Python's lock while they work
        with ThreadPoolExecutor(WORKERS) as pool:
            blocks = list(_progress(pool.map(self._rank_block, queries), len(queries)))
        top, pairs, ranks, tied, candidates = (
            np.concatenate(parts) for parts in zip(none, *blocks)
        )
        return Ranking(Ranks(pairs[:, 0], ranks, candidates, tied), pairs, top)

    def _sum_features(self) -> None:
        """Makes once for all users what a model sums over the features of all products."""
        for path, layer in self.model.feature_embeddings().items():
            if layer.features.side == "product" and path in self._sums:
                self._sums[path].assign(layer.sums())
            elif layer.features.side == "product":
                self._sums[path] = tf.Variable(layer.sums(), trainable=False)

    def _rank_block(self, query: Query) -> tuple[np.ndarray, ...]:
        """(top [U, K], and of each relevant product its pair, rank, number of tied products and
        number of candidates).
        """
        position, product = query.relevant.T
        hidden = np.bincount(query.masked[:, 0], minlength=len(query.user))
        left = self.catalog.num_products - hidden
        scores, top = self._rank(self._batch(query), tf.constant(query.masked))
        pairs = np.stack([query.user[position], product], axis=1)
        return top.numpy(), pairs, *_ranks(scores.numpy(), query.relevant), left[position]

    def candidate_ranking(self) -> Ranking:
        """Returns each tested product's rank among itself and its negatives.

        Each line of the file, or row that validates, counts as a user.
        """
        users, products = self._candidates
        context = self._context_of_rows(users, products[:, 0])
        none = np.zeros((0, 2), np.int32)
        blocks = []
        for block in _progress(_blocks(len(users), USERS_AT_ONCE)):
            part = slice(*block)
            batch = self._batch(Query(users[part], context[part], none, none))
            blocks.append(self._rank_among(batch, tf.constant(products[part])))
        rank, tied = np.concatenate(blocks, axis=1)
        candidates = np.full(len(users), products.shape[1])
        ranks = Ranks(np.arange(len(users)), rank, candidates, tied.astype(int))
        pairs = np.stack([users, products[:, 0]], axis=1)
        return Ranking(ranks, pairs, np.zeros((0, self._longest), np.int32))

    @cached_property
    def _candidates(self) -> tuple[np.ndarray, np.ndarray]:
        """As read_candidates; validation only takes from the file how many negatives there are."""
        given = read_candidates(Path(self.config.candidates_file), self.catalog)
        if self.part == "test":
            return given
        count = self.catalog.num_products
        return draw_candidates(self.rows, keys_of(self._taken), count, given[1].shape[1] - 1)

    def _score_rows(self, batch: Batch, tables: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        batch = with_features(batch, tables)
        product = batch["product"]
        scores = self.model.output(self.model(batch), product)
        if not self.fallbacks:
            return scores, tf.zeros(tf.shape(scores), tf.int8)
        scores, source = self.fallbacks.score(self.model, batch, batch["user"], product, scores)
        number = tf.argmax(tf.equal(source[:, None], tf.constant(SOURCES)), axis=1)
        return scores, tf.cast(number, tf.int8)

    @property
    def _longest(self) -> int:
        return min(max(self.config.k), self.catalog.num_products)

    @property
    def _range(self) -> tuple[float, float]:
        """Returns the least and the greatest training rating, to which the export clips, too."""
        return self.train.stats.range

    def _rank_products(self, batch: Batch, masked: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Scores [U, P], -inf where masked, and the products of the highest."""
        with self.model.override_embeddings(dict(self._sums)):
            scores = self.model.output(self.model.score_all(batch))
        if self.fallbacks:
            scores, *_ = self.fallbacks.rank(self.model, batch, batch["user"], scores)
        scores = tf.tensor_scatter_nd_update(scores, masked, tf.fill(tf.shape(masked)[:1], -np.inf))
        best, top = tf.math.top_k(scores, self._longest)
        return scores, tf.where(tf.math.is_inf(best), -1, top)

    def _rank_candidates(self, batch: Batch, products: tf.Tensor) -> tf.Tensor:
        scores = self.model.output(self.model.score_candidates(batch, products), products)
        if self.fallbacks:
            scores, *_ = self.fallbacks.rank(self.model, batch, batch["user"], scores, products)
        return _rank(scores[:, 0], scores)

    def _batch(self, query: Query) -> Batch:
        batch = {
            "user": tf.constant(query.user, tf.int32),
            "context": tf.constant(query.context, tf.float32),
        }
        if self.model.reads("user_features") and self.catalog.user_features.shape[1]:
            of_users = self.catalog.user_features.take(query.user)
            batch["user_features"] = tf.constant(of_users.dense())
        return batch

    @cached_property
    def _queries(self) -> list[Query]:
        """Returns the users with relevant rows, in blocks of about SCORES_AT_ONCE floats."""
        count, users_of = self.catalog.num_products, self.catalog.num_users
        rows = relevant_rows(self.rows, self.config.relevance_threshold)
        users = choose_users(rows.users(), self.config.ranked_users, users_of)
        wanted = np.unique(rows.of_users(users).keys)
        seen = keys_of([part.of_users(users) for part in self.seen])
        # what they had before is masked, whatever it is now
        wanted = np.setdiff1d(wanted, seen, assume_unique=True)
        users = np.unique(wanted // count)
        seen = seen[np.isin(seen // count, users)]
        floats = max(self.model.floats_per_score, self.catalog.user_features.shape[1] // count)
        size = max(SCORES_AT_ONCE // (count * floats), USERS_AT_LEAST)
        cuts = np.searchsorted(wanted, users[size::size] * count)
        return [self._query(keys, seen) for keys in np.split(wanted, cuts) if len(keys)]

    def _query(self, wanted: np.ndarray, seen: np.ndarray) -> Query:
        """wanted, seen: sorted keys."""
        count = self.catalog.num_products
        users = np.unique(wanted // count)
        seen = seen[slice(*np.searchsorted(seen, [users[0] * count, (users[-1] + 1) * count]))]
        pairs = [
            np.stack([np.searchsorted(users, keys // count), keys % count], axis=1).astype(np.int32)
            for keys in (wanted, seen)
        ]
        return Query(users, self._context_of(users), *pairs)

    def _context_of(self, users: np.ndarray) -> np.ndarray:
        """Returns the context in which a user is recommended to, f32 [U, C].

        That of their first tested row, or the static one.
        """
        default = self.catalog.default_context
        if self.static:
            return np.broadcast_to(default, (len(users), len(default)))
        return self.rows.context[self._first_rows[users]]

    def _context_of_rows(self, users: np.ndarray, products: np.ndarray) -> np.ndarray:
        """Returns the contexts of the tested rows of pairs int [n], f32 [n, C].

        The static one where there is no such row.
        """
        pairs = users.astype(np.int64) * self.catalog.num_products + products
        context = np.repeat(self.catalog.default_context[None], len(pairs), axis=0)
        if self.static or not len(self.rows):
            return context
        keys = self.rows.keys
        order = np.argsort(keys, kind="stable")
        at = np.searchsorted(keys[order], pairs)
        found = (at < len(keys)) & (keys[order[np.minimum(at, len(keys) - 1)]] == pairs)
        context[found] = self.rows.context[order[at[found]]]
        return context

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """Returns each user's first tested row, int [U]; 0 where there is none."""
        rows, first = self.rows, np.zeros(self.catalog.num_users, np.int64)
        order = np.arange(len(rows))
        if rows.timestamp is not None:
            order = np.argsort(rows.timestamp, kind="stable")
        # of several numbers for a place the last one stays
        first[rows.user[order[::-1]]] = order[::-1]
        return first


def relevant_rows(rows: MemoryInteractions, threshold: float | None) -> MemoryInteractions:
    """Rows with at least this rating; None: all."""
    return rows if threshold is None else rows.take(rows.rating >= threshold)


def keys_of(parts: Sequence[MemoryInteractions]) -> np.ndarray:
    """Returns the keys of all rows of some parts, sorted, each once."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(part.keys for part in parts)]))


def nothing_to_rank(
    rows: MemoryInteractions, seen: Sequence[MemoryInteractions], threshold: float | None
) -> str:
    """Returns why no ranking metric can be made of the rows, for users whose `seen` rows are
    masked.

    "" where some can.
    """
    relevant = relevant_rows(rows, threshold)
    if not len(rows):
        return "there are none"
    if not len(relevant):
        same = ""
        if (rows.rating == rows.rating[0]).all():
            same = f"; every rating is {rows.rating[0]:g}"
        return f"none is rated {threshold:g} or more (--relevance_threshold){same}"
    if np.isin(relevant.keys, keys_of(seen)).all():
        return "all are products that the users had in training already"
    return ""


def _progress(blocks: Iterable, total: int | None = None) -> Iterable:
    """Returns a bar on anything that takes longer than two seconds."""
    return bar(blocks, "evaluating", total, unit="block", delay=2)


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
