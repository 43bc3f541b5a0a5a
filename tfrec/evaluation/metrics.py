"""`tfrec.metrics`: metrics of predictions, and what a metric of one's own is given.

A metric is a function of `Predictions`. `tfrec.hooks.EarlyStopping(metric=function)` stops by one,
and `tfrec.evaluate(model, split, metrics=[function])` shows it.

Example:
    >>> def median_error(predictions):
    ...     return np.median(np.abs(predictions.scores - predictions.rows.rating))
    >>> early = tfrec.hooks.EarlyStopping(metric=median_error, more_is_better=False)
    >>> trainer.fit(split.train, split.validation, hooks=[early, tfrec.hooks.ProgressBar()])
"""

from tfrec.evaluation.evaluate import Predictions, Ranking
from tfrec.evaluation.ranking import Ranks
from tfrec.evaluation.ranking import metrics as ranking_metrics
from tfrec.evaluation.ranking import per_user as ranking_metrics_per_user
from tfrec.evaluation.rating import metrics as rating_metrics

__all__ = [
    "Predictions",
    "Ranking",
    "Ranks",
    "ranking_metrics",
    "ranking_metrics_per_user",
    "rating_metrics",
]
