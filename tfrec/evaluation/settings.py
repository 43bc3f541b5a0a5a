"""Settings of evaluation."""

from dataclasses import dataclass

from tfrec.settings import Part, setting


@dataclass(frozen=True)
class RankingSettings:
    """How a ranking is judged."""

    k: tuple[int, ...] = setting((5, 10, 20), "cut-offs of the ranking metrics", low=1)
    relevance_threshold: float | None = setting(
        None, "test rows with at least this rating are relevant; unset: all are"
    )


@dataclass(frozen=True)
class FullRankingSettings:
    """What only a run of the rating task can choose."""

    full_ranking: bool = setting(
        False,
        "rank all products for each user, too; else ratings are judged by rating metrics and by "
        "how well they order each user's own test rows",
    )


@dataclass(frozen=True)
class JudgingSettings:
    """What every evaluation has."""

    evaluation_context: str = setting(
        "true",
        "context of tested rows: their own, or the static default that serving fills in",
        ("true", "static"),
    )
    mask_seen: bool = setting(
        True,
        "rankings and recommendations leave out what the user has already; false where people take "
        "the same again",
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


@dataclass(frozen=True)
class EvaluationSettings(JudgingSettings, FullRankingSettings, RankingSettings):
    """How a model is judged."""

    def ranks(self, task: str) -> bool:
        """Returns whether a model of the task is judged by ranking metrics."""
        return task == "ranking" or self.full_ranking or bool(self.candidates_file)


class Judging(Part):
    """How a model of either task is judged."""

    Settings = JudgingSettings


class FullRanking(Part):
    """Whether a model that predicts ratings is judged as a ranking model, too."""

    Settings = FullRankingSettings


class RankingMetrics(Part):
    """How a ranking is judged."""

    Settings = RankingSettings


class Evaluation(Part):
    """All settings of an evaluation."""

    Settings = EvaluationSettings
