"""Losses of the ranking task: a product's score beside those of its negatives."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfrec.data.interactions import Interactions
from tfrec.data.negatives import Negatives, sampling_weights
from tfrec.errors import UsageError
from tfrec.layers import Lookup, Order, lookup
from tfrec.losses.base import Loss
from tfrec.models.base import Batch, Recommender
from tfrec.settings import setting

RECENCY = 5.0  # where the rows have timestamps
MASKED = -1e9  # a logit that has no share; -inf has no gradient where all are masked


@dataclass(frozen=True)
class RankingSettings:
    """What every loss of the ranking task has."""

    exclude_positives: bool | None = setting(
        None,
        "no negatives that the row's user has in training; unset: so where training rows are in "
        "memory",
    )
    confidence_power: float | None = setting(
        None,
        "confidence weight of a training row: (rating / highest rating) ^ confidence_power; 0: all "
        "weigh alike; unset: 1 where the mean rating is above half of the highest, as with stars, "
        "and training rows are in memory; else 0",
        low=0.0,
    )
    recency: float | None = setting(
        None,
        "how much more a user's latest rows count: the latest 1 + recency times, one with i later "
        f"rows 1 + recency e^(-i / 10) times; 0: all alike; unset: {RECENCY:g}, but 0 without "
        "timestamps, for rows on disk, and where --split is random, kfold, cold_user or "
        "cold_product",
        low=0.0,
    )


@dataclass(frozen=True)
class SampledSettings(RankingSettings):
    """Of a loss whose negatives are drawn."""

    explicit_negatives: bool = setting(
        False,
        "the first negative of a row is a training product that its user rated below "
        "positive_from, where there is one",
    )
    negatives: int = setting(8, "negatives drawn for each positive, anew at each step", low=1)
    shared_negatives: int = setting(
        0, "share this many negatives across the batch; the total weight is unchanged", low=0
    )
    negative_power: float = setting(
        0.0,
        "popularity-weighted negatives: draw them in proportion to their training rows to this "
        "power; 0: uniformly",
        low=0.0,
        high=10.0,
    )

    def __post_init__(self) -> None:
        if self.explicit_negatives and self.shared_negatives:
            raise UsageError(
                "explicit_negatives does not go with shared_negatives. Take one of them."
            )


@dataclass(frozen=True)
class HardSettings(SampledSettings):
    """Of a loss that can learn from the hardest of the drawn negatives."""

    hard_negatives: int = setting(
        0,
        "draw this many for each positive, and train on those `negatives` of the highest score; "
        "0: on all drawn",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hard_negatives and self.explicit_negatives:
            raise UsageError("hard_negatives does not go with explicit_negatives. Take one.")
        if self.hard_negatives and self.shared_negatives:
            raise UsageError("hard_negatives does not go with shared_negatives. Take one of them.")
        if 0 < self.hard_negatives < self.negatives:
            raise UsageError(
                f"hard_negatives={self.hard_negatives}: expected at least negatives, which is "
                f"{self.negatives}."
            )


def suited(train: Interactions) -> dict[str, Any]:
    """Returns the settings that suit the training rows where they are unset."""
    stats = train.stats
    high = train.in_memory and stats.mean > stats.range[1] / 2 > 0
    recent = train.in_memory and train.timed and train.split_by_time
    return {
        "exclude_positives": train.in_memory,
        "confidence_power": float(high),
        "recency": RECENCY if recent else 0.0,
    }


class RankingLoss(Loss):
    """The base of losses that compare a product with negatives; a subclass writes `from_scores`."""

    task = "ranking"
    Settings: ClassVar[type] = SampledSettings
    # of the settings that are unset, what suits the training rows
    _excludes, _power, _recency = False, 0.0, 0.0

    def prepare(self, train: Interactions) -> None:
        found = suited(train)
        self._excludes, self._power = found["exclude_positives"], found["confidence_power"]
        self._recency = found["recency"]
        train.check_recency(self.settings.recency)
        if not getattr(self.settings, "explicit_negatives", False):
            return
        if not train.in_memory or train.disliked is None or not len(train.disliked):
            raise UsageError(
                "explicit_negatives: no training row is known not to be liked. positive_from, in "
                "memory, says which are."
            )

    @property
    def negatives(self) -> Negatives:
        """Returns how the batches draw negatives."""
        s = self.settings
        return Negatives(
            s.negatives,
            s.shared_negatives,
            power=s.negative_power,
            exclude_positives=self.exclude_positives,
            explicit=s.explicit_negatives,
        )

    @property
    def exclude_positives(self) -> bool:
        """Returns whether a user's own products are no negatives."""
        given = self.settings.exclude_positives
        return self._excludes if given is None else given

    @property
    def confidence_power(self) -> float:
        """Returns the power of the rating that a row's confidence weight is."""
        given = self.settings.confidence_power
        return self._power if given is None else given

    @property
    def recency(self) -> float:
        """Returns how much more a user's latest rows weigh."""
        given = self.settings.recency
        return self._recency if given is None else given

    @property
    def shares(self) -> tuple[float, float]:
        """Returns what of a row's loss is its product's, and what is its negatives' together.

        L2 counts them by these shares. Each of n negatives, or of a pool that the batch shares,
        counts a part of the latter, by its negative_weight where there is one.
        """
        return 1.0, 1.0

    def from_scores(
        self,
        scores: tf.Tensor,
        negative_scores: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        """Returns the loss of each product.

        Args:
            scores: Of products, f32 [B, L].
            negative_scores: f32 [B, N].
            products: int32 [B, L].
            negatives: int32 [B, N], or [N] for all rows.
            weight: Of the negatives, f32 [B, N]; None: all weigh the same.

        Returns:
            f32 [B, L].
        """
        raise NotImplementedError

    def per_list(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss of each of several products of a row.

        Args:
            model: Scores them.
            batch: With "negatives".
            products: int32 [B, L].
            y: f32 [B, L]; not read.

        Returns:
            f32 [B, L].
        """
        scores, negative_scores = _scores(model, batch, products)
        weight = batch.get("negative_weight")
        if weight is not None:
            weight = tf.broadcast_to(weight, tf.shape(negative_scores))
        return self.from_scores(scores, negative_scores, products, batch["negatives"], weight)

    def lookups(self, batch: Batch, weight: tf.Tensor) -> list[Lookup]:
        """Returns the rows of the tables that a batch reads, and what L2 counts of each."""
        of_product, of_negatives = self.shares
        negatives, weight = batch["negatives"], tf.expand_dims(weight, 1)
        share = batch.get("negative_weight", tf.ones_like(negatives, tf.float32))
        share = tf.math.divide_no_nan(share, tf.reduce_sum(share, axis=-1, keepdims=True))
        share = weight * of_negatives * share  # [B, N]
        product = tf.expand_dims(batch["product"], 1)
        if negatives.shape.rank == 1:
            shared = Lookup(negatives, tf.reduce_sum(share, axis=0), shared=True)
            return [Lookup(product, weight * of_product), shared]
        ids = tf.concat([product, negatives], 1)
        order = Order.of(batch, "product")
        return [Lookup(ids, tf.concat([weight * of_product, share], 1), order=order)]


class HardNegatives(RankingLoss):
    """A loss that can learn from those of each row's negatives that score highest now."""

    Settings = HardSettings

    @property
    def negatives(self) -> Negatives:
        """Returns how the batches draw the negatives to choose from."""
        s = self.settings
        return Negatives(
            s.hard_negatives or s.negatives,
            s.shared_negatives,
            power=s.negative_power,
            exclude_positives=self.exclude_positives,
            explicit=s.explicit_negatives,
        )

    def choose(self, model: Recommender, batch: Batch) -> Batch:
        """Returns the batch with the negatives of each row that score highest now."""
        if not self.settings.hard_negatives:
            return batch
        scores = model.score_candidates(batch, batch["negatives"], training=True)
        count = self.settings.negatives
        hardest = tf.math.top_k(tf.stop_gradient(scores), count, sorted=False).indices
        return batch | {"negatives": tf.gather(batch["negatives"], hardest, batch_dims=1)}


class Sigmoid(HardNegatives):
    """Sigmoid cross-entropy of the product (label 1) and of its n negatives (label 0), their mean.

        (l(s) + n mean_j l(-s_j)) / (1 + n),   l(s) = log(1 + exp(-s))

    A pool that the batch shares, of any size, weighs as much as n negatives: the same loss in
    expectation.
    """

    @property
    def shares(self) -> tuple[float, float]:
        n = self.settings.negatives
        return 1 / (1 + n), n / (1 + n)

    def from_scores(
        self,
        scores: tf.Tensor,
        negative_scores: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        n = self.settings.negatives
        negative = tf.expand_dims(_mean(tf.nn.softplus(negative_scores), weight), 1)
        return (tf.nn.softplus(-scores) + n * negative) / (1 + n)


class BPR(HardNegatives):
    """mean_j log(1 + exp(s_j - s)): the product is better than a negative.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", 2009.
    """

    def from_scores(
        self,
        scores: tf.Tensor,
        negative_scores: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        better = tf.expand_dims(negative_scores, 1) - tf.expand_dims(scores, 2)
        return _mean(tf.nn.softplus(better), None if weight is None else tf.expand_dims(weight, 1))


@dataclass(frozen=True)
class SoftmaxSettings(RankingSettings):
    """Of both softmax losses."""

    temperature: float = setting(1.0, "what scores are divided by", low=1e-3)


@dataclass(frozen=True)
class SampledSoftmaxSettings(SoftmaxSettings, SampledSettings):
    """Settings of SampledSoftmax."""

    negatives: int = setting(
        0, "negatives drawn for each positive, anew at each step; 0: those that are shared", low=0
    )
    shared_negatives: int | None = setting(  # type: ignore[assignment]
        None,
        "negatives drawn for the whole batch at once; unset: 512, if there are no others",
        low=0,
    )
    negative_power: float = setting(
        0.5,
        "popularity-weighted negatives: draw them in proportion to their training rows to this "
        "power; 0: uniformly",
        low=0.0,
        high=10.0,
    )

    def __post_init__(self) -> None:
        if self.explicit_negatives:  # which are not drawn by q
            raise UsageError("explicit_negatives does not go with a softmax. Take loss=bpr, say.")
        if bool(self.negatives) == bool(self.pool):
            raise UsageError(
                f"negatives={self.negatives} does not go with shared_negatives={self.pool}. Give "
                "one of them."
            )

    @property
    def pool(self) -> int:
        """Returns how many negatives a batch shares."""
        if self.shared_negatives is None:
            return 0 if self.negatives else 512
        return self.shared_negatives


class Softmax(RankingLoss):
    """-log(exp(l) / (exp(l) + sum_j exp(l_j))) with l = s / temperature - log q.

    One of the product and its negatives was chosen. q [P] are the probabilities with which
    negatives come by: who is often a negative would be pushed down for that alone, and without
    log q, scores come out lower by log q than those of the softmax over all products. A negative
    that is the product itself does not count. Source: Bengio and Senecal, 2008; for negatives that
    are the batch's own products Yi et al., "Sampling-Bias-Corrected Neural Modeling", 2019.
    """

    def prepare(self, train: Interactions) -> None:
        super().prepare(train)
        mass = self.sampling_weights(train.counts("product"))
        # a product that is never drawn counts as one that has a weight of 1
        log_q = np.log(np.maximum(mass, 1) / mass.sum()).astype(np.float32)
        self.log_q = tf.Variable(log_q, trainable=False, name="log_q")

    def sampling_weights(self, counts: np.ndarray) -> np.ndarray:
        """To which q is in proportion, int64 [P]; counts: training rows of each product."""
        raise NotImplementedError

    def from_scores(
        self,
        scores: tf.Tensor,
        negative_scores: tf.Tensor,
        products: tf.Tensor,
        negatives: tf.Tensor,
        weight: tf.Tensor | None,
    ) -> tf.Tensor:
        temperature = self.settings.temperature
        logits = scores / temperature - lookup(self.log_q, products)
        others = negative_scores / temperature - lookup(self.log_q, negatives)
        each = negatives if negatives.shape.rank == 1 else tf.expand_dims(negatives, 1)
        masked = tf.equal(tf.expand_dims(products, 2), each)
        if weight is not None:
            masked |= tf.expand_dims(weight, 1) == 0
        others = tf.where(masked, MASKED, tf.expand_dims(others, 1))
        return tf.nn.softplus(tf.reduce_logsumexp(others, axis=2) - logits)


class SampledSoftmax(Softmax):
    """Softmax over the product and drawn negatives."""

    Settings = SampledSoftmaxSettings

    @property
    def negatives(self) -> Negatives:
        return dataclasses.replace(super().negatives, shared=self.settings.pool)

    def sampling_weights(self, counts: np.ndarray) -> np.ndarray:
        return sampling_weights(counts, self.settings.negative_power)


class InBatchSoftmax(Softmax):
    """Softmax over the products of the global batch."""

    Settings = SoftmaxSettings

    @property
    def negatives(self) -> Negatives:
        exclude = self.exclude_positives
        return Negatives(in_batch=True, power=1.0, exclude_positives=exclude)

    def sampling_weights(self, counts: np.ndarray) -> np.ndarray:
        return counts


def _scores(model: Recommender, batch: Batch, products: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores of products int32 [B, L] and of the batch's negatives, f32 [B, L] and [B, N]."""
    training, negatives = "product" in batch, batch["negatives"]  # fold-in's batches have none
    if negatives.shape.rank == 1:
        # one matrix product, and the gradient has B + N rows of the product table
        scores = model.score_candidates(batch, products, training)
        return scores, model.score_candidates(batch, negatives, training)
    together = tf.concat([products, negatives], axis=1)
    scores = model.score_candidates(batch, together, training)
    apart = tf.split(scores, [products.shape[1], negatives.shape[1]], axis=1)
    return apart[0], apart[1]


def _mean(values: tf.Tensor, weight: tf.Tensor | None) -> tf.Tensor:
    """Weighted, along the last axis; 0 where nothing weighs."""
    if weight is None:
        return tf.reduce_mean(values, axis=-1)
    weights = tf.reduce_sum(tf.broadcast_to(weight, tf.shape(values)), axis=-1)
    return tf.math.divide_no_nan(tf.reduce_sum(weight * values, axis=-1), weights)
