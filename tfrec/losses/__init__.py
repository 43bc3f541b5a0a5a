"""Losses: (model, batch, y) -> one number a row."""

from tfrec.losses.base import Loss
from tfrec.losses.ranking import BPR, InBatchSoftmax, RankingLoss, SampledSoftmax, Sigmoid
from tfrec.losses.rating import AbsoluteError, Huber, Ordinal, RatingLoss, SquaredError

__all__ = [
    "BPR",
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
