"""Settings of training: the Trainer's, and those of the hooks that a run brings."""

from dataclasses import dataclass

from tfrec.errors import UsageError
from tfrec.settings import Part, setting


@dataclass(frozen=True)
class TrainerSettings:
    """Settings of a Trainer."""

    batch_size: int = setting(1024, "global batch size, over all replicas", low=1)
    epochs: int = setting(50, "passes over the training rows, at most", low=1)
    l2: float | None = setting(
        None,
        "L2: each row of a table that a training row reads adds l2 times its squared length to "
        "that row's loss, biases apart; unset: 0.1 for ratings, 0.03 for ranking",
        low=0.0,
        by_task={"rating": 0.1, "ranking": 0.03},
    )
    seed: int = setting(
        0, "seed of initial weights, order of rows and negatives", low=0, high=2**31 - 1
    )
    cold_embeddings: str = setting(
        "mean",
        "table rows of users and products without training rows: the mean of the others, which "
        "weigh by their own training rows in so far as validation rows are of such users or "
        "products, or their random ones",
        ("mean", "keep"),
    )
    steps_per_loop: int = setting(
        0, "steps of one inner loop in the graph; 0: an epoch, at most 1,000", low=0
    )
    jit_compile: bool = setting(
        False, "compile the gradient with XLA (on CPU this made a step 50 times slower)"
    )


@dataclass(frozen=True)
class EarlyStoppingSettings:
    """Settings of EarlyStopping."""

    early_stopping: int = setting(
        5,
        "stop after this many epochs without a better validation metric, keep the best "
        "weights; 0: never, keep the last",
        low=0,
    )


@dataclass(frozen=True)
class TensorBoardSettings:
    """Settings of TensorBoard."""

    histograms: bool = setting(False, "histograms of the weights for TensorBoard")


@dataclass(frozen=True)
class ProfileSettings:
    """Settings of Profile."""

    profile_steps: tuple[int, ...] = setting(
        (),
        "first and last step, counted from 1 over all epochs, of a profile for TensorBoard, "
        "such as 100,120; empty: none",
        low=1,
    )

    def __post_init__(self) -> None:
        steps = self.profile_steps
        if steps and not (len(steps) == 2 and steps[0] < steps[1]):
            given = ",".join(map(str, steps))
            raise UsageError(
                f"profile_steps={given}: expected two rising numbers, the first and the last "
                "step, such as 100,120."
            )


class Training(Part):
    """The settings of a Trainer, where none is made yet."""

    Settings = TrainerSettings


class Stopping(Part):
    """Those of EarlyStopping."""

    Settings = EarlyStoppingSettings


class Logging(Part):
    """Those of TensorBoard."""

    Settings = TensorBoardSettings


class Profiling(Part):
    """Those of Profile."""

    Settings = ProfileSettings
