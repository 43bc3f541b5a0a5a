"""A finished run, taken up again: its model, other metrics of it, a new export."""

import dataclasses
from pathlib import Path
from typing import Any

from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions
from tfrec.data.settings import SPLITS
from tfrec.errors import TfrecError, UsageError
from tfrec.evaluation import rating
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.experiments import loading, per_user
from tfrec.experiments.config import Config, make_config
from tfrec.experiments.run import Run
from tfrec.settings import fields
from tfrec.system.text import said

SPLIT_SETTINGS = ("split", "split_seed", "test_fraction", "fold", "folds")


def evaluate(workdir: Path, changes: dict[str, Any]) -> dict[str, Any]:
    """Returns metrics of a finished run under other settings, in the form of metrics.json.

    Rows that the run has trained or validated on are not tested.

    Args:
        workdir: The run's folder.
        changes: Settings of the split and the evaluation, and the task.

    Raises:
        UsageError: There is no finished run, a setting made the model, or no row is left to test.
    """
    allowed = {
        "task",
        *SPLIT_SETTINGS,
        *(spec.name for spec in dataclasses.fields(EvaluationSettings)),
    }
    for name in changes:
        if name not in allowed:
            files = " Train with --split=files to test a file." if name.endswith("_file") else ""
            raise UsageError(
                f"--{name}: it made the run and cannot be changed now.{files} What can be: "
                f"{', '.join(sorted(allowed))}."
            )
    run = Run.open(workdir)
    config = run.settings
    train, validation, test = run.split.parts()
    if changes.get("split") == "files" != config.data.split:
        raise UsageError(
            "--split=files: the run's rows come from one file. Train with --split=files to test "
            "another one."
        )
    task = changes.get("task", config.task)
    if task == "rating" != config.task:
        raise UsageError(
            "--task=rating: the run learned to rank, and its scores are no ratings. Train with "
            "--task=rating instead."
        )
    fixed = sorted(changes.keys() & {*SPLIT_SETTINGS})
    if fixed and not train.in_memory:
        raise UsageError(
            f"--{', '.join(fixed)}: the run's rows are on disk, and were divided by "
            "scripts/prepare.py. Leave it out."
        )
    also = {"full_ranking": True} if task != config.task else {}
    changed = {name: value for name, value in changes.items() if name != "task"}
    config = _changed(config, changed | also)
    if fixed:
        assert isinstance(train, MemoryInteractions) and isinstance(validation, MemoryInteractions)
        again = loading.read(config).split_by(config.data).test
        assert isinstance(again, MemoryInteractions)
        test = again.without(train, validation)
    if not len(test):
        raise UsageError(
            f"--split={config.data.split}: the run has seen all of its test rows. Train with this "
            "split instead."
        )
    print(f"split {config.data.split}: {len(test):,} test rows that the run has not seen")
    tested = Split(train, validation, test)
    result, predictions, evaluator = Run(config, tested, run.model).evaluate()
    if not changes:
        try:
            per_user.save(
                workdir, per_user.metrics(predictions, evaluator)
            )  # runs of older code lack it
        except TfrecError as error:  # a folder that is only read, say
            print(f"{said(str(error))} The metrics below are right; compare.py needs that file.")
    if task == "ranking":
        for metrics in (result["test"], *result["baselines"].values()):
            for name in rating.NAMES:
                metrics.pop(name, None)
    return result | {name: run.record[name] for name in ("train", "parameters")}


def _changed(config: Config, changes: dict[str, Any]) -> Config:
    """Returns the settings with these changes; what another split lacks is left out."""
    given = dict(config.given) | changes
    if changes.get("split", config.split) != config.split:
        lacking = fields(SPLITS[config.split]).keys() - changes.keys()
        lacking -= fields(SPLITS[changes["split"]]).keys() if changes["split"] in SPLITS else set()
        given = {name: value for name, value in given.items() if name not in lacking}
    return make_config(**given).with_prepared(config.prepared)
