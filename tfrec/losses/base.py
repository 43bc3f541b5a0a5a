"""The contract of a loss: (model, batch, y) -> one number a row."""

from typing import Any, ClassVar

import tensorflow as tf

from tfrec.data.batches import BatchSettings
from tfrec.data.interactions import Interactions
from tfrec.data.negatives import Negatives
from tfrec.data.targets import Scaling
from tfrec.layers import Lookup, Order
from tfrec.models.base import Batch, Recommender
from tfrec.settings import Part


class Loss(tf.Module, Part):
    """What training minimises, and what fold-in does.

    The loop weighs the numbers of a batch's rows and averages them over the global batch. A loss
    that needs weights of its own keeps them.

    Raises:
        UsageError: A setting is unknown, has the wrong type or is out of bounds.
    """

    task: ClassVar[str]  # rating or ranking
    scaling: Scaling | None = None  # what makes targets of ratings; None: they are the ratings

    def __init__(self, **settings: Any) -> None:
        tf.Module.__init__(self)
        Part.__init__(self, **settings)

    def prepare(self, train: Interactions) -> None:
        """Learns what the loss needs to know of the training rows; call it in the strategy's scope.

        Raises:
            UsageError: The rows do not suit the loss.
        """

    def batch_settings(self, batch_size: int, seed: int, columns: Any = None) -> BatchSettings:
        """Returns the batches that the loss learns from, see Interactions.batches."""
        return BatchSettings(
            batch_size,
            seed,
            self.negatives,
            self.confidence_power,
            self.scaling,
            columns,
            recency=self.recency,
        )

    def named_weights(self) -> dict[str, tf.Variable]:
        """Returns {name: variable} of what is trained beside the model."""
        return {}

    @property
    def negatives(self) -> Negatives | None:
        """Returns the negatives that a training batch brings; None: none."""
        return None

    @property
    def confidence_power(self) -> float:
        """Returns a training row's weight is (rating / highest rating) to this power; 0: all are
        alike.
        """
        return 0.0

    @property
    def recency(self) -> float:
        """Returns how much more a user's latest rows weigh, see BatchSettings; 0: all are alike."""
        return 0.0

    def __call__(self, model: Recommender, batch: Batch, y: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each row of a training batch, with targets y f32 [B] -> f32 [B]."""
        products, targets = tf.expand_dims(batch["product"], 1), tf.expand_dims(y, 1)
        return tf.squeeze(self.per_list(model, batch, products, targets), 1)

    def per_list(
        self, model: Recommender, batch: Batch, products: tf.Tensor, y: tf.Tensor
    ) -> tf.Tensor:
        """Returns the loss of each of several products a row.

        Args:
            batch: For ranking with negatives int32 [B, N], or [N] for all rows, and where some
                count less negative_weight f32 [B, N] or [N].
            products: int32 [B, L].
            y: Their targets, f32 [B, L].

        Returns:
            f32 [B, L].
        """
        raise NotImplementedError

    def choose(self, model: Recommender, batch: Batch) -> Batch:
        """Returns the training batch with those of its negatives that the loss learns from."""
        return batch

    def lookups(self, batch: Batch, weight: tf.Tensor) -> list[Lookup]:
        """Returns the products that a training batch reads, and what they weigh in L2.

        Args:
            weight: Of the rows, f32 [B].
        """
        ids, order = tf.expand_dims(batch["product"], 1), Order.of(batch, "product")
        return [Lookup(ids, tf.expand_dims(weight, 1), order=order)]

    def inverse_link(self, scores: tf.Tensor) -> tf.Tensor:
        """Returns what the model's scores f32 [...] predict: targets, or numbers to rank by, f32
        [...].
        """
        return scores
