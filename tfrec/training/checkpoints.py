"""Checkpoints: raw variables by path, and a small state beside them.

A checkpoint is a folder step-N with TensorFlow's files and state.json. It is written under another
name and renamed, so one that is there is whole.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import TfrecError, tensorflow_lines
from tfrec.system import sealed

_SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def save(folder: Path, step: int, variables: dict[str, tf.Variable], state: dict[str, Any]) -> Path:
    """Writes folder/step-N and returns its path."""
    target, draft = folder / f"step-{step}", folder / f"draft-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    tf.train.Checkpoint(**variables).write(str(draft / "variables"))
    (draft / "state.json").write_text(sealed.dumps(state))
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    return target


def steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in the folder, ascending."""
    return sorted(int(path.name[5:]) for path in folder.glob("step-*") if path.name[5:].isdecimal())


def keep(folder: Path, wanted: set[int]) -> None:
    """Removes every other checkpoint, and drafts that a killed run left."""
    for step in set(steps(folder)) - wanted:
        shutil.rmtree(folder / f"step-{step}")
    for draft in folder.glob("draft-*"):
        if draft.name[6:].isdecimal():
            shutil.rmtree(draft)


def state(folder: Path, step: int) -> dict[str, Any]:
    """Returns what was saved beside the variables. Raises a TfrecError where it is damaged."""
    return sealed.read_json(folder / f"step-{step}" / "state.json", _mend(folder, step))


def last(folder: Path) -> dict[str, Any]:
    """Returns the state of a finished run's last checkpoint.

    Raises:
        TfrecError: there is none, or it is damaged.
    """
    found = steps(folder)
    if not found:
        raise TfrecError(
            f"{folder}: there is no checkpoint. Remove the run's folder, and train it again."
        )
    return state(folder, found[-1])


def _mend(folder: Path, step: int) -> str:
    if (folder.parent / "metrics.json").exists():
        return "Remove the run's folder, and train it again."
    if step not in steps(folder)[-1:]:  # the best one, which the last one counts on
        return f"Remove {folder}: the run begins anew."
    return (
        f"Remove {folder / f'step-{step}'}: the run goes on from the checkpoint before, or "
        "from the start."
    )


def weights(folder: Path, step: int) -> dict[str, np.ndarray]:
    """Returns {path within the model: the saved value}."""
    try:
        reader = tf.train.load_checkpoint(str(folder / f"step-{step}" / "variables"))
        saved = {
            _path(key): key for key in reader.get_variable_to_shape_map() if key.endswith(_SUFFIX)
        }
        return {
            path.removeprefix("model/"): reader.get_tensor(key)
            for path, key in saved.items()
            if path.startswith("model/")
        }
    except Exception as error:
        raise _unreadable(folder, step, error) from None


def restore(
    folder: Path, step: int, variables: dict[str, tf.Variable], partly: bool = False
) -> None:
    """Sets the variables: all that were saved or, partly, some of them.

    Raises:
        TfrecError: a variable is missing on one side, or has another shape there.
    """
    prefix = str(folder / f"step-{step}" / "variables")
    try:
        saved = dict(tf.train.list_variables(prefix))
    except Exception as error:  # TensorFlow's, and those of protobuf
        raise _unreadable(folder, step, error) from None
    saved = {_path(key): shape for key, shape in saved.items() if key.endswith(_SUFFIX)}
    for path, variable in variables.items():
        there = saved.get(path)
        if there != variable.shape.as_list():
            what = "it is not there" if there is None else f"its shape is {there} there"
            raise TfrecError(
                f"{folder / f'step-{step}'}: variable {path} {variable.shape.as_list()}: {what}. "
                "Did the data, the model or tfrec change?"
            )
    surplus = sorted(saved.keys() - variables.keys())
    if surplus and not partly:
        raise TfrecError(
            f"{folder / f'step-{step}'}: it holds {', '.join(surplus)}, which this run has not. "
            "Did the model change?"
        )
    try:
        tf.train.Checkpoint(**variables).read(
            prefix
        ).assert_existing_objects_matched().expect_partial()
    except Exception as error:  # a checksum of TensorFlow's own, say
        raise _unreadable(folder, step, error) from None


def _unreadable(folder: Path, step: int, error: Exception) -> TfrecError:
    why = next(iter(tensorflow_lines(error)), type(error).__name__)[:200]
    return TfrecError(
        f"{folder / f'step-{step}'}: not a readable checkpoint ({why}). {_mend(folder, step)}"
    )


def _path(key: str) -> str:
    """Returns the variable's path, from its key in TensorFlow's file."""
    return key.removesuffix(_SUFFIX).replace(".S", "/")
