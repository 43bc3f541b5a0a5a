"""Losses: (model, batch, y) -> one number per row, which the loop weighs and averages over the
global batch.

A loss that needs weights of its own keeps them, and says how a score is read: `decode` makes of it
what is evaluated and served.
"""

import numpy as np
import tensorflow as tf

from tfrec.config import Config
from tfrec.data.interactions import Interactions
from tfrec.data.negatives import Negatives, sampling_weights
from tfrec.errors import UsageError
from tfrec.layers import Lookup, lookup
from tfrec.models.base import Batch, Recommender

MOST_LEVELS = 100  # of ratings, for `ordinal`
MASKED = -1e9  # a logit that has no share; -inf has no gradient where all are masked


class Loss(tf.Module):
    """What training minimises, and what fold-in does."""

    def named_weights(self) -> dict[str, tf.Variable]:
        """{name: variable} of what is trained beside the model."""
        return {}

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        """One number a row, f32 [B]."""
        return tf.squeeze(
            self.of_lists(model, batch, tf.expand_dims(batch["product"], 1), tf.expand_dims(y, 1)),
            1,
        )

    def of_lists(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        """One number for each of products int32 [B, L], whose targets are y f32 [B, L]: f32 [B, L].

        batch["negatives"], for ranking: int32 [B, N], or [N] the same for all rows;
        batch["negative_weight"], f32 [B, N] or [N], may lack.
        """
        raise NotImplementedError

    def choose(self, model: Recommender, batch: Batch) -> Batch:
        """The training batch with those of its negatives that the loss learns from."""
        return batch

    def lookups(self, batch: Batch, weight: tf.Tensor) -> list[Lookup]:
        """The products that a row of the training batch reads, and what they weigh in L2 where the
        row weighs f32 [B].
        """
        return [Lookup(tf.expand_dims(batch["product"], 1), tf.expand_dims(weight, 1))]

    def decode(self, scores: tf.Tensor) -> tf.Tensor:
        """What the model's scores f32 [...] say.

        A target (rating) or a number to rank by (ranking), f32 [...].
        """
        return scores


class Rating(Loss):
    """An error of each score."""

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        return self.of_scores(model(batch, training=True), y)

    def of_lists(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        return self.of_scores(model.score_candidates(batch, products), y)

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        """scores and targets y f32 [...] -> f32 [...]."""
        raise NotImplementedError


class SquaredError(Rating):
    """(y^ - y)^2."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.square(scores - y)


class AbsoluteError(Rating):
    """|y^ - y|."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.abs(scores - y)


class Huber(Rating):
    """e^2 / 2 where |e| <= 1, else |e| - 1/2, for e = y^ - y."""

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        error = tf.abs(scores - y)
        return tf.where(error <= 1, tf.square(error) / 2, error - 0.5)


class Ordinal(Rating):
    """Cumulative logit: P(y <= v_k) = sigmoid(c_k - s) for the levels v_1 < .. < v_K of the
    training targets; -log P(y = v_k).

    The cut-points c_1 < .. < c_{K-1} are the loss' own: c_1, and steps softplus(t) to the next
    ones. They start where a score of the mean target gives the levels their shares in training.
    Decoded, a score is the expected target. Source: McCullagh, "Regression Models for Ordinal
    Data", 1980; for recommenders Koren and Sill, "OrdRec", 2011.
    """

    def __init__(self, targets: np.ndarray) -> None:
        """targets.

        Of the training rows, f32 [n]. Raises UsageError where they have too many levels, or one.
        """
        super().__init__()
        levels, counts = np.unique(targets, return_counts=True)
        if not 2 <= len(levels) <= MOST_LEVELS:
            raise UsageError(
                f"--loss=ordinal: the training ratings have {len(levels)} levels, and it takes 2 "
                f"to {MOST_LEVELS}."
            )
        self.levels = levels.astype(np.float32)
        below = np.cumsum(counts)[:-1] / len(targets)
        cuts = targets.mean() + np.log(below / (1 - below))
        steps = np.log(np.expm1(np.diff(cuts)))  # softplus of it is the difference
        self.cuts = tf.Variable(np.concatenate([cuts[:1], steps]), dtype=tf.float32, name="cuts")

    def named_weights(self) -> dict[str, tf.Variable]:
        return {"cuts": self.cuts}

    def of_scores(self, scores: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        # log(sigmoid(a) - sigmoid(b)) = log sigmoid(a) + log sigmoid(-b) + log(1 - exp(b - a)),
        # stable for any a > b
        cuts = tf.concat([[MASKED], self.cut_points(), [-MASKED]], axis=0)
        level = tf.searchsorted((self.levels[1:] + self.levels[:-1]) / 2, tf.reshape(y, [-1]))
        level = tf.reshape(level, tf.shape(y))
        low, high = tf.gather(cuts, level), tf.gather(cuts, level + 1)
        return (
            tf.nn.softplus(scores - high)
            + tf.nn.softplus(low - scores)
            - tf.math.log(-tf.math.expm1(low - high))
        )

    def decode(self, scores: tf.Tensor) -> tf.Tensor:
        expected = tf.fill(tf.shape(scores), self.levels[-1])
        for cut, step in zip(
            tf.unstack(self.cut_points()), np.diff(self.levels)
        ):  # no [..., K], which would not fit
            expected -= step * tf.sigmoid(cut - scores)
        return expected

    def cut_points(self) -> tf.Tensor:
        """c_1 .. c_{K-1}, f32 [K - 1]."""
        raw = tf.convert_to_tensor(self.cuts)
        return tf.cumsum(tf.concat([raw[:1], tf.nn.softplus(raw[1:])], axis=0))


class Ranking(Loss):
    """A product's score beside those of its negatives.

    weighs: what in a row's loss is its product's, and what is that of its negatives together: by
    these shares L2 counts them. Each of n negatives, or of a pool that the batch shares, counts a
    part of the latter, by its negative_weight where there is one.
    """

    weighs = (1.0, 1.0)

    def lookups(self, batch: Batch, weight: tf.Tensor) -> list[Lookup]:
        of_product, of_negatives = self.weighs
        negatives, weight = batch["negatives"], tf.expand_dims(weight, 1)
        share = (
            tf.ones_like(negatives, tf.float32)
            if "negative_weight" not in batch
            else batch["negative_weight"]
        )
        share = (
            weight
            * of_negatives
            * tf.math.divide_no_nan(share, tf.reduce_sum(share, axis=-1, keepdims=True))
        )  # [B, N]
        product = tf.expand_dims(batch["product"], 1)
        if negatives.shape.rank == 1:
            return [
                Lookup(product, weight * of_product),
                Lookup(negatives, tf.reduce_sum(share, axis=0), shared=True),
            ]
        return [
            Lookup(tf.concat([product, negatives], 1), tf.concat([weight * of_product, share], 1))
        ]

    def of_lists(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        scores, of_negatives = _scores(model, batch, products)
        weight = batch.get("negative_weight")
        if weight is not None:
            weight = tf.broadcast_to(weight, tf.shape(of_negatives))
        return self.of_scores(scores, of_negatives, products, batch["negatives"], weight)

    def of_scores(
        self,
        scores: tf.Tensor,
        of_negatives: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        """scores of products [B, L], and of negatives [B, N] or [N], which weigh [B, N] or, None,
        the same: f32 [B, L].
        """
        raise NotImplementedError


class Sigmoid(Ranking):
    """Sigmoid cross-entropy of the product (label 1) and of its n negatives (label 0), their mean:
    (l(s) + n mean_j l(-s_j)) / (1 + n).

    l(s) = log(1 + exp(-s)). A pool that the batch shares, of any size, weighs as much as n
    negatives: the same loss in expectation.
    """

    def __init__(self, negatives: int) -> None:
        super().__init__()
        self.negatives = negatives
        self.weighs = (1 / (1 + negatives), negatives / (1 + negatives))

    def of_scores(
        self,
        scores: tf.Tensor,
        of_negatives: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        negative = _mean(tf.nn.softplus(of_negatives), weight)
        return (tf.nn.softplus(-scores) + self.negatives * tf.expand_dims(negative, 1)) / (
            1 + self.negatives
        )


class Bpr(Ranking):
    """mean_j log(1 + exp(s_j - s)).

    That the product is better than a negative. Source: Rendle et al., "BPR", 2009.
    """

    def of_scores(
        self,
        scores: tf.Tensor,
        of_negatives: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        better = tf.expand_dims(of_negatives, 1) - tf.expand_dims(scores, 2)
        return _mean(tf.nn.softplus(better), None if weight is None else tf.expand_dims(weight, 1))


class Softmax(Ranking):
    """-log(exp(l) / (exp(l) + sum_j exp(l_j))) with l = s / temperature - log q: one of the product
    and its negatives was chosen.

    q [P] are the probabilities with which negatives come by. Who is often a negative would be
    pushed down for that alone; without log q, scores come out lower by log q than those of the
    softmax over all products. A negative that is the product itself does not count. Source: Bengio
    and Senecal, 2008; for negatives that are the batch's own products Yi et al.,
    "Sampling-Bias-Corrected Neural Modeling", 2019.
    """

    def __init__(self, mass: np.ndarray, temperature: float) -> None:
        """mass.

        Int64 [P], to which q is in proportion; a product that is never drawn counts as one that has
        a mass of 1.
        """
        super().__init__()
        self.temperature = temperature
        self.log_q = tf.Variable(
            np.log(np.maximum(mass, 1) / mass.sum()).astype(np.float32),
            trainable=False,
            name="log_q",
        )

    def of_scores(
        self,
        scores: tf.Tensor,
        of_negatives: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        logits = scores / self.temperature - lookup(self.log_q, products)
        others = of_negatives / self.temperature - lookup(self.log_q, negatives)
        same = tf.equal(
            tf.expand_dims(products, 2),
            negatives if negatives.shape.rank == 1 else tf.expand_dims(negatives, 1),
        )
        masked = same if weight is None else same | (tf.expand_dims(weight, 1) == 0)
        others = tf.where(masked, MASKED, tf.expand_dims(others, 1))
        return tf.nn.softplus(tf.reduce_logsumexp(others, axis=2) - logits)


class Hardest(Loss):
    """Another loss, on those `count` of each row's own negatives to which the model now gives the
    highest scores.
    """

    def __init__(self, loss: Loss, count: int) -> None:
        super().__init__()
        self.loss, self.count = loss, count

    def choose(self, model: Recommender, batch: Batch) -> Batch:
        scores = model.score_candidates(batch, batch["negatives"], training=True)
        hardest = tf.math.top_k(tf.stop_gradient(scores), self.count, sorted=False).indices
        return batch | {"negatives": tf.gather(batch["negatives"], hardest, batch_dims=1)}

    def lookups(self, batch: Batch, weight: tf.Tensor) -> list[Lookup]:
        return self.loss.lookups(batch, weight)

    def of_lists(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        return self.loss.of_lists(model, batch, products, y)


def negatives(config: Config) -> Negatives:
    """The negatives that the settings' loss learns from."""
    train = config.train
    in_batch = train.loss == "in_batch_softmax"
    count = train.hard_negatives or train.negatives
    return Negatives(
        count,
        train.shared_negatives,
        in_batch,
        1.0 if in_batch else train.negative_power,
        train.reject_positives,
    )


def make(config: Config, rows: Interactions) -> Loss:
    """The loss of the settings for the training rows. Make it in the strategy's scope.

    Raises:
        UsageError: the ratings do not suit it.
    """
    train = config.train
    if train.loss in RATING:
        return RATING[train.loss]()
    if train.loss == "ordinal":
        return Ordinal(np.concatenate([chunk["y"] for chunk in rows.chunks()]))
    if train.loss.endswith("softmax"):
        counts = rows.counts("product")
        if train.loss != "in_batch_softmax":
            counts = sampling_weights(counts, train.negative_power)
        return Softmax(counts, train.temperature)
    loss: Ranking = {"sigmoid": lambda: Sigmoid(train.negatives), "bpr": Bpr}[train.loss]()
    return Hardest(loss, train.negatives) if train.hard_negatives else loss


RATING: dict[str, type[Rating]] = {"mse": SquaredError, "mae": AbsoluteError, "huber": Huber}


def _scores(model: Recommender, batch: Batch, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Of products int32 [B, L], and of batch["negatives"] int32 [B, N] or, shared by the rows, [N].

    F32 [B, L] and [B, N].
    """
    training = "product" in batch  # fold-in's batches have none
    if (
        batch["negatives"].shape.rank == 1
    ):  # one matrix product, and the gradient has B + N rows of the product table
        return model.score_candidates(batch, products, training), model.score_candidates(
            batch, batch["negatives"], training
        )
    scores = model.score_candidates(
        batch, tf.concat([products, batch["negatives"]], axis=1), training
    )
    return scores[:, : products.shape[1]], scores[:, products.shape[1] :]


def _mean(values: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """Weighted, along the last axis; 0 where nothing weighs."""
    if weight is None:
        return tf.reduce_mean(values, axis=-1)
    return tf.math.divide_no_nan(
        tf.reduce_sum(weight * values, axis=-1),
        tf.reduce_sum(tf.broadcast_to(weight, tf.shape(values)), axis=-1),
    )
