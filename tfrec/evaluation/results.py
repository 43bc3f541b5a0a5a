"""`tfrec.evaluate`: metrics of a model on the test rows."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tfrec import settings as parts
from tfrec.data.interactions import Split
from tfrec.evaluation import baselines as references
from tfrec.evaluation import fallbacks
from tfrec.evaluation.evaluate import Evaluator, Predictions
from tfrec.evaluation.ranking import shown_k
from tfrec.evaluation.settings import Evaluation
from tfrec.models.base import Recommender
from tfrec.system.text import aligned

Metric: TypeAlias = Callable[[Predictions], float]

SHOWN = ("rmse", "mae", "r2", "fcp", "hr@{k}", "ndcg@{k}", "recall@{k}", "mrr@{k}", "auc")


class Result(dict[str, float]):
    """Metrics by name; printed, a table with the baselines below the model.

    Args:
        name: Of the model.
        metrics: {name: value}.
        baselines: {name: metrics} of what was measured beside it.
        own: Metrics of the user's own, which the table shows too.
    """

    def __init__(
        self,
        name: str,
        metrics: dict[str, float],
        baselines: dict[str, dict[str, float]],
        own: tuple[str, ...] = (),
    ) -> None:
        super().__init__(metrics)
        self.name, self.baselines, self.own = name, baselines, own

    def __str__(self) -> str:
        rows = {self.name: dict(self)}
        rows |= {f"baseline {name}": metrics for name, metrics in self.baselines.items()}
        return table(rows, self.own)


def evaluate(
    model: Recommender,
    split: Split,
    baselines: bool = False,
    metrics: Sequence[Metric] = (),
    **settings: Any,
) -> Result:
    """Returns the metrics of a model on the test rows, as it would be served.

    Users and products without training rows are answered for by the fallbacks, unless
    `fallbacks=False`.

    Args:
        model: A trained model.
        split: What it was trained on, and what it is judged on.
        baselines: Whether to measure global_mean, bias and popularity beside it.
        metrics: Of one's own: functions of `tfrec.metrics.Predictions` that return a number.
        settings: k, relevance_threshold, full_ranking, candidates_file, evaluation_context,
            ranked_users, fallbacks.

    Raises:
        UsageError: A setting is unknown or wrong, or there are no test rows.

    Example:
        >>> found = tfrec.evaluate(model, split, baselines=True, k=(5, 10))
        >>> print(found)
        >>> found["ndcg@10"]
    """
    made = parts.make(Evaluation, settings)
    if not isinstance(split, Split):
        raise parts.UsageError(
            f"split: expected the whole split, got a {type(split).__name__}: it says what is known."
        )
    if not len(split.test):
        raise parts.UsageError("split: it has no test rows.")
    fitted = references.fit(split.train)
    answers = fallbacks.make(model, split.train, fitted) if made.fallbacks else None
    evaluator = Evaluator(model, split, made, fallbacks=answers)
    predictions = evaluator.predictions()
    own = {getattr(of, "__name__", "metric"): float(of(predictions)) for of in metrics}
    others = references.measure(fitted, split, model.task, made) if baselines else {}
    return Result(model.name, evaluator.metrics(predictions) | own, others, tuple(own))


def table(rows: dict[str, dict[str, float]], more: tuple[str, ...] = ()) -> str:
    """Returns metrics of several models as a table, rankings at 10 or the least k.

    Args:
        rows: {model: {metric: value}}; what a model lacks is a dash.
        more: Further metrics.
    """
    k = shown_k(name for metrics in rows.values() for name in metrics)
    names = [name.format(k=k) for name in (*SHOWN, *more)]
    names = [name for name in names if any(name in metrics for metrics in rows.values())]
    heads = [name.replace("reference_true_positives", "ref. hits") for name in names]
    lines = [["test", *heads]]
    lines += [[row, *(cell(metrics.get(name)) for name in names)] for row, metrics in rows.items()]
    return aligned(lines)


def cell(value: float | None) -> str:
    """Returns a metric as tables have it."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
