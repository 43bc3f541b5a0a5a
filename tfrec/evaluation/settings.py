"""Settings of evaluation."""

from dataclasses import dataclass

from tfrec.settings import Part, setting


@dataclass(frozen=True)
class EvaluationSettings:
    """How a model is judged."""

    k: tuple[int, ...] = setting((5, 10, 20), "cut-offs of the ranking metrics", low=1)
    relevance_threshold: float | None = setting(
        None, "test rows with at least this rating are relevant; unset: all are"
    )
    evaluation_context: str = setting(
        "true",
        "context of tested rows: their own, or the static default that serving fills in",
        ("true", "static"),
    )
    ranked_users: int = setting(
        10_000,
        "ranking metrics (from blocks: all metrics) are of so many users at most, drawn from "
        "those with rows to test; 0: of all",
        low=0,
    )
    fallbacks: bool = setting(
        True,
        "who and what has no training rows is answered for as in the export, not by the bare model",
    )
    candidates_file: str = setting(
        "",
        "rank each test product among given negatives: lines of '(user,item)', then tab-separated "
        "negatives",
    )


class Evaluation(Part):
    """How a model is judged."""

    Settings = EvaluationSettings
