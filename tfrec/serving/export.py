"""Model -> a SavedModel that takes and returns raw ids, and needs no tfrec to run."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Split
from tfrec.evaluation.fallbacks import Fallbacks, among
from tfrec.evaluation.fallbacks import make as make_fallbacks
from tfrec.layers import FeatureTable
from tfrec.models.base import Batch, Recommender
from tfrec.models.demographic import known_attributes
from tfrec.serving import ids
from tfrec.serving.fold_in import FoldIn
from tfrec.serving.time_context import DAY, Clock
from tfrec.system import outputs
from tfrec.system.graph import compiled

Answer = dict[str, tf.Tensor]


class ServingModule(tf.Module):
    """Owns the variables and the id tables, and the signatures over them.

    Ids are raw ones, int64 or string as in the data; lists of ids are padded with -2^63 or "",
    which are never a product's, and of those given any id that the data lack pads, too. `context`
    is f32 [B, C], and exclude [B, X], each with one row for all users, too, or none, which means
    the default context and that nothing is excluded. A user or product without a training row is
    new. Scores are ratings in the data's own units, clipped to their scale, or what the model ranks
    by: logits, and for those with a closed form numbers of their own. K is k or, if less, the
    number of products.

    `timestamp` int64 [B], or one for all users, or none: seconds since 1970, 0 where the time is
    not known. Where no context is given, a known time tells it; and the biases of days are those of
    that day, which are 0 where it is not known.

    score: user [B], product [B], context, timestamp -> rating f32 [B] (log-odds where the model of
        a ranking task cannot tell), source string [B]: "model"; "content": the product is new, and
        the model reads its features; "demographic": the user is new, and judged by
        their attributes in the users table, by the model if it reads them; "popularity": neither.
    recommend: user [B], k [], context, timestamp, exclude, allow [A], exclude_seen bool [] ->
        product [B, K], title [B, K], score f32 [B, K], source string [B]: "model"; "demographic",
        scored by the model if it reads attributes, else by the share of people like them
        who chose a product; or "popularity", scored by the number of training rows. An empty
        `allow` allows all. Positions past the last product that may be recommended are padded,
        score -inf.
    similar: product [B], k [] -> product, title, score [B, K]: by the cosine of the product
        vectors. A new product is compared by its features, where they are a part of these; else it
        has no neighbours, and is nobody's.
    recommend_for_history: product [B, L], rating f32 [B or 0, L] (none: likes; NaN is padding),
        k [], context, timestamp, exclude, allow -> as recommend, for users who are not in the data;
        of a product that comes twice the last rating counts. source "fold_in", or "popularity"
        where the model cannot be folded into or no product is known.
    recommend_by_attributes: attribute string [B, A] such as "gender=F", padded with "", k [],
        exclude, allow -> as recommend, for users who are not in the data and have these; source
        "demographic", or "popularity" where no attribute is known. Only where the data have
        attributes of users.
    """

    def __init__(
        self,
        model: Recommender,
        split: Split,
        fallbacks: Fallbacks | None = None,
    ) -> None:
        """Of a trained model: it copies product tables, so make a new one after more training.

        Args:
            split: `exclude_seen` hides the rows to train and to validate.
            fallbacks: What answers where it knows nothing; None: they are fitted here.
        """
        catalog, train = split.catalog, split.train
        fallbacks = fallbacks or make_fallbacks(model, train)
        super().__init__()
        self._output, self._fold_in = model.output, FoldIn(model, split.train)
        self._model, self._fallbacks = ids.Untracked(model), ids.Untracked(fallbacks)
        self._task = model.task
        self._of_fallbacks = [
            fallbacks.trained_users,
            fallbacks.trained_products,
            fallbacks.described_users,
        ]
        tables = {
            path: table
            for path, table in model.embeddings("product").items()
            if len(table.widths) > 1
        }
        parts: dict[str, Any] = {
            path: dict(zip(table.widths, map(ids.variable, table.split(table.table.numpy()))))
            for path, table in tables.items()
        }
        sums = model.feature_embeddings()
        self._parts = parts | {path: ids.variable(layer.sums()) for path, layer in sums.items()}
        self._read: list[tf.Variable] = []  # by what is exported
        weights = [weight.value for part in (model, *fallbacks.models()) for weight in part.weights]
        apart = [table.table.value for table in tables.values()]
        for layer in sums.values():  # `export` adds those that are read in another way
            apart += [weight.value for weight in (layer.kernel, *layer.features.weights)]
        self._model_variables = [
            weight for weight in weights if not any(weight is table for table in apart)
        ]
        self._users, self._products = ids.lookup(catalog.user_ids), ids.lookup(catalog.product_ids)
        products = fallbacks.trained_products.numpy()
        groups = np.flatnonzero(known_attributes(catalog.user_features))
        self._attributes: Any = (
            ids.lookup(np.array(catalog.user_features.names, object)[groups], groups)
            if len(groups)
            else None
        )
        self._ids, self._titles = (
            ids.constant(catalog.product_ids),
            ids.constant(catalog.products["title"].to_numpy(object)),
        )
        self._num_attributes = catalog.user_features.shape[1]
        reads = model.reads("user_features") and self._num_attributes > 0
        self._user_features = ids.Untracked(
            FeatureTable(catalog.user_features, "user") if reads else None
        )
        self._default_context = ids.variable(catalog.default_context)
        self._clock = Clock(catalog.time) if train.timed else None
        self._low, self._high = train.stats.range
        seen, begin = split.seen_products()
        self._seen = ids.variable(seen)  # by user, after a row of nobody's that is empty
        self._seen_splits = ids.variable(np.concatenate([[0], begin]).astype(np.int32))
        vectors = _vectors(model, products)
        self._vectors = None if vectors is None else ids.variable(vectors)
        unit = catalog.features.unit_rows()
        self._features = ids.Untracked(FeatureTable(unit, "product") if vectors is None else None)
        described = np.diff(unit.begins) > 0 if vectors is None else (vectors != 0).any(axis=1)
        self._described = ids.variable(described)
        kept = [of.it for of in (self._user_features, self._features) if of.it]
        self._of_tables = [weight.value for table in kept for weight in table.weights]

        user, product = ids.dtype(catalog.user_ids), ids.dtype(catalog.product_ids)
        context = tf.TensorSpec([None, len(catalog.default_context)], tf.float32, "context")
        timestamp, k = (
            tf.TensorSpec([None], tf.int64, "timestamp"),
            tf.TensorSpec([], tf.int32, "k"),
        )
        exclude, allow = (
            tf.TensorSpec([None, None], product, "exclude"),
            tf.TensorSpec([None], product, "allow"),
        )
        one_user, one_product = (
            tf.TensorSpec([None], user, "user"),
            tf.TensorSpec([None], product, "product"),
        )
        hide = tf.TensorSpec([], tf.bool, "exclude_seen")
        lists, ratings = (
            tf.TensorSpec([None, None], product, "product"),
            tf.TensorSpec([None, None], tf.float32, "rating"),
        )
        self.score = compiled(
            self._by_parts(self._score), [one_user, one_product, context, timestamp]
        )
        self.recommend = compiled(
            self._by_parts(self._recommend), [one_user, k, context, timestamp, exclude, allow, hide]
        )
        self.similar = compiled(self._similar, [one_product, k])
        self.recommend_for_history = compiled(
            self._by_parts(self._recommend_for_history),
            [lists, ratings, k, context, timestamp, exclude, allow],
        )
        self.serving = {
            name: getattr(self, name)
            for name in ("score", "recommend", "similar", "recommend_for_history")
        }
        if len(groups):
            attributes = tf.TensorSpec([None, None], tf.string, "attribute")
            self.serving["recommend_by_attributes"] = compiled(
                self._recommend_by_attributes, [attributes, k, exclude, allow]
            )

    def track(self) -> None:
        """Keeps all variables that the functions read, so that a SavedModel may hold them."""
        functions = [function.get_concrete_function() for function in self.serving.values()]
        self._read = [variable for function in functions for variable in function.variables]

    def _by_parts(self, function: Callable[..., Answer]) -> Callable[..., Answer]:
        """Returns the function, in which the model reads its product tables from the parts that are
        kept here.
        """

        @functools.wraps(function)
        def call(*arguments: tf.Tensor) -> Answer:
            with self._model.it.override_embeddings(self._parts):
                return function(*arguments)

        return call

    def _score(
        self, user: tf.Tensor, product: tf.Tensor, context: tf.Tensor, timestamp: tf.Tensor
    ) -> Answer:
        u, p = (
            self._users.lookup(user),
            self._products.lookup(ids.alike(product, user, "user and product")),
        )
        batch, at = self._batch(u, context, timestamp), tf.maximum(p, 0)
        rating = self._output(self._model.it.score_candidates(batch, at[:, None])[:, 0], at)
        rating, source = self._fallbacks.it.score(self._model.it, batch, u, p, rating)
        answer = {"rating": self._clip(rating), "source": source}
        deviation = self._model.it.deviation(u, p)
        return answer if deviation is None else answer | {"deviation": deviation}

    def _recommend(
        self,
        user: tf.Tensor,
        k: tf.Tensor,
        context: tf.Tensor,
        timestamp: tf.Tensor,
        exclude: tf.Tensor,
        allow: tf.Tensor,
        exclude_seen: tf.Tensor,
    ) -> Answer:
        u = self._users.lookup(user)
        batch = self._batch(u, context, timestamp)
        scores = self._output(self._model.it.score_all(batch))
        scores, source, by_model = self._fallbacks.it.rank(self._model.it, batch, u, scores)
        seen = tf.RaggedTensor.from_row_splits(self._seen, self._seen_splits, validate=False)
        hidden = tf.gather(seen, tf.where(exclude_seen, u + 1, 0)).to_tensor(-1)
        return self._best(self._allowed(scores, exclude, allow, hidden), k, by_model) | {
            "source": source
        }

    def _recommend_by_attributes(
        self, attribute: tf.Tensor, k: tf.Tensor, exclude: tf.Tensor, allow: tf.Tensor
    ) -> Answer:
        column = self._attributes.lookup(attribute)
        batch = {"user_features": tf.reduce_max(tf.one_hot(column, self._num_attributes), axis=1)}
        scores, source = self._fallbacks.it.cold_start_scores(
            batch, tf.reduce_any(column >= 0, axis=1)
        )
        return self._best(self._allowed(scores, exclude, allow), k) | {"source": source}

    def _recommend_for_history(
        self,
        product: tf.Tensor,
        rating: tf.Tensor,
        k: tf.Tensor,
        context: tf.Tensor,
        timestamp: tf.Tensor,
        exclude: tf.Tensor,
        allow: tf.Tensor,
    ) -> Answer:
        p, count = self._products.lookup(product), tf.shape(product)[0]
        likes = tf.fill(
            tf.shape(p), self._high
        )  # who likes a product would give it the highest rating
        rating = tf.cond(
            tf.shape(rating)[0] == 0,
            lambda: likes,
            lambda: ids.alike(rating, p, "product and rating"),
        )
        known_products = among(self._fallbacks.it.trained_products, p) | (
            (p >= 0) & self._model.it.uses_product_features
        )
        known_products &= ~tf.math.is_nan(rating)
        known_products &= ids.is_last(tf.where(known_products, p + 1, 0), self._ids.shape[0] + 1)
        known, scores = (
            tf.reduce_any(known_products, axis=1),
            self._fallbacks.it.by_popularity(count),
        )
        rating = tf.where(
            known_products, tf.clip_by_value(rating, self._low, self._high), self._high
        )
        folded_in = self._fold_in(
            tf.where(known_products, p, -1),
            rating,
            self._context(context, self._times(timestamp, count)),
        )
        if folded_in is None:
            source = tf.fill([count], "popularity")
        else:
            scores, source = (
                tf.where(known[:, None], folded_in, scores),
                tf.where(known, "fold_in", "popularity"),
            )
        return self._best(self._allowed(scores, exclude, allow, p), k, source == "fold_in") | {
            "source": source
        }

    def _similar(self, product: tf.Tensor, k: tf.Tensor) -> Answer:
        p = self._products.lookup(product)
        at, there = tf.maximum(p, 0), self._described  # of the others nothing can be compared
        if self._vectors is not None:
            scores = tf.matmul(tf.gather(self._vectors, at), self._vectors, transpose_b=True)
        else:
            scores = self._features.it(None).dot(self._features.it(at).dense())
        scores = tf.where(among(there, p)[:, None] & there, scores, -np.inf)
        return self._best(ids.hide(scores, ids.pairs(p[:, None])), k)

    def _batch(self, u: tf.Tensor, context: tf.Tensor, timestamp: tf.Tensor) -> Batch:
        time = self._times(timestamp, tf.shape(u)[0])
        batch = {"user": tf.maximum(u, 0), "context": self._context(context, time)}
        if self._clock:
            batch["day"] = tf.where(time != 0, tf.cast(time // DAY, tf.int32), -1)
        if self._user_features.it:
            batch["user_features"] = self._user_features.it(batch["user"]).dense()
        return batch

    def _times(self, timestamp: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """int64 [count], 0 where the time is not known."""
        timestamp = ids.for_each(timestamp[:, None], count, "timestamp")[:, 0]
        return tf.pad(timestamp, [[0, count - tf.shape(timestamp)[0]]])

    def _context(self, context: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
        """Returns the context as given.

        Without any, that of the `time` int64 [B], and where it is not known the default.
        """
        context = ids.for_each(context, tf.shape(time)[0], "context")
        otherwise = tf.tile(self._default_context[None], [tf.shape(time)[0], 1])
        if self._clock:
            otherwise = tf.where((time != 0)[:, None], self._clock(time), otherwise)
        return tf.cond(tf.shape(context)[0] == 0, lambda: otherwise, lambda: context)

    def _clip(self, scores: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(scores, self._low, self._high) if self._task == "rating" else scores

    def _allowed(
        self,
        scores: tf.Tensor,
        exclude: tf.Tensor,
        allow: tf.Tensor,
        hidden: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """scores [B, P] with -inf where a product is not recommended.

        Hidden: products [B, L] besides, -1 where there is none.
        """
        excluded = ids.for_each(self._products.lookup(exclude), tf.shape(scores)[0], "exclude")
        pairs = [ids.pairs(products) for products in (excluded, hidden) if products is not None]
        scores = ids.hide(scores, tf.concat(pairs, axis=0))

        def listed() -> tf.Tensor:
            allowed = self._products.lookup(allow)
            index = tf.boolean_mask(allowed, allowed >= 0)[:, None]
            return tf.where(
                tf.scatter_nd(index, tf.ones(tf.shape(index)[:1], tf.int32), [self._ids.shape[0]])
                > 0,
                scores,
                -np.inf,
            )

        return tf.cond(tf.size(allow) == 0, lambda: scores, listed)

    def _best(self, scores: tf.Tensor, k: tf.Tensor, rated: tf.Tensor | None = None) -> Answer:
        """Returns the K best of scores [B, P].

        Past the last one padding. Those of users bool [B] who are `rated` for are clipped when in
        order.
        """
        with tf.control_dependencies(
            [tf.debugging.Assert(k > 0, ["k: expected 1 or more; got", k])]
        ):
            values, index = tf.math.top_k(scores, tf.minimum(k, self._ids.shape[0]))
        there = values > -np.inf
        if rated is not None:
            values = tf.where(there & rated[:, None], self._clip(values), values)
        product = tf.where(there, tf.gather(self._ids, index), ids.padding(self._ids.dtype))
        return {
            "product": product,
            "title": tf.where(there, tf.gather(self._titles, index), ""),
            "score": values,
        }


def export(server: ServingModule, folder: Path) -> None:
    """Writes the SavedModel; the folder is whole or not there.

    Args:
        server: What answers.
        folder: New, empty, or an older export.

    Raises:
        UsageError: The folder holds something else than an export.
        TfrecError: It cannot be written.
    """
    server.track()
    with outputs.exported(folder) as draft:
        tf.saved_model.save(server, str(draft), signatures=server.serving)


def _vectors(model: Recommender, trained_products: np.ndarray) -> np.ndarray | None:
    """Returns the directions that products are compared by, f32 [P, D], of new ones what their
    features say.

    0 where that is nothing. None: the model has none.
    """
    tables = model.embeddings("product")
    with model.override_embeddings(
        {
            path: tf.where(trained_products[:, None], table.table.value, 0)
            for path, table in tables.items()
        }
    ):
        vectors = model.product_embeddings()
    return None if vectors is None else tf.math.l2_normalize(vectors, axis=1).numpy()
