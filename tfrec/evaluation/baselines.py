"""Baselines: what a model has to beat, fitted on the same training rows."""

from tfrec.data.interactions import Interactions, Split
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.models.popularity import GlobalMean, Popularity

Baselines = dict[str, Popularity]


def fit(train: Interactions) -> Baselines:
    """Fits global_mean, bias and popularity to training rows."""
    made: Baselines = {
        "global_mean": GlobalMean.from_data(train, "rating"),
        "bias": Popularity.from_data(train, "rating"),
        "popularity": Popularity.from_data(train, "ranking"),
    }
    for baseline in made.values():
        baseline.fit_closed_form(train)
    return made


def measure(
    baselines: Baselines, split: Split, task: str, settings: EvaluationSettings
) -> dict[str, dict[str, float]]:
    """Metrics of the baselines on the test rows, by name.

    For the ranking task they are ranked only, and global_mean, which ranks nothing, is left out;
    for the rating task without full ranking, popularity is.
    """
    found = {}
    for name, baseline in baselines.items():
        if baseline.task == "rating" and not split.catalog.rated:
            continue
        kind = baseline.task if task == "rating" else "ranking"
        if baseline.task == "ranking" and not settings.ranks(task):
            continue
        evaluator = Evaluator(baseline, split, settings, task=kind)
        if name != "global_mean":
            found[name] = evaluator.metrics()
        elif task == "rating":
            found[name] = evaluator.rating_metrics()
    return found
