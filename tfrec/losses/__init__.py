"""Losses: (model, batch, y) -> one number a row. To add one, write its class and its line here."""

from tfrec.losses.base import Loss
from tfrec.losses.ranking import BPR, InBatchSoftmax, RankingLoss, SampledSoftmax, Sigmoid
from tfrec.losses.rating import AbsoluteError, Huber, Ordinal, RatingLoss, SquaredError

LOSSES: dict[str, type[Loss]] = {
    "mse": SquaredError,
    "mae": AbsoluteError,
    "huber": Huber,
    "ordinal": Ordinal,
    "sigmoid": Sigmoid,
    "bpr": BPR,
    "sampled_softmax": SampledSoftmax,
    "in_batch_softmax": InBatchSoftmax,
}

__all__ = [
    "BPR",
    "LOSSES",
    "AbsoluteError",
    "Huber",
    "InBatchSoftmax",
    "Loss",
    "Ordinal",
    "RankingLoss",
    "RatingLoss",
    "SampledSoftmax",
    "Sigmoid",
    "SquaredError",
]
