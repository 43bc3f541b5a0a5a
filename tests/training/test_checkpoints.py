import numpy as np
import pytest
import tensorflow as tf

from tfrec.errors import TfrecError
from tfrec.training import checkpoints


def variables(*shapes):
    return {
        f"layer/{i}": tf.Variable(np.random.RandomState(i).normal(size=shape), dtype=tf.float32)
        for i, shape in enumerate(shapes)
    }


def zeros_like(saved):
    return {path: tf.Variable(tf.zeros_like(variable)) for path, variable in saved.items()}


def test_restore_gives_back_values_and_state(tmp_path):
    saved = variables((3, 2), ())
    checkpoints.save(tmp_path, 5, saved, {"epoch": 2, "best_value": None})
    fresh = zeros_like(saved)
    checkpoints.restore(tmp_path, 5, fresh)
    for path, variable in saved.items():
        np.testing.assert_array_equal(fresh[path], variable)
    assert checkpoints.state(tmp_path, 5) == {"epoch": 2, "best_value": None}


def test_a_part_can_be_restored(tmp_path):
    saved = variables((3, 2), (4,))
    checkpoints.save(tmp_path, 5, saved, {})
    part = {"layer/1": tf.Variable(tf.zeros(4))}
    with pytest.raises(TfrecError, match="it holds layer/0, which this run has not"):
        checkpoints.restore(tmp_path, 5, part)
    checkpoints.restore(tmp_path, 5, part, partly=True)
    np.testing.assert_array_equal(part["layer/1"], saved["layer/1"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layer/0": tf.zeros([3, 3])}, r"variable layer/0 \[3, 3\]: its shape is \[3, 2\] there"),
        ({"layer/9": tf.zeros([3])}, r"variable layer/9 \[3\]: it is not there"),
    ],
)
def test_what_differs_is_named(tmp_path, wanted, message):
    checkpoints.save(tmp_path, 5, variables((3, 2)), {})
    with pytest.raises(TfrecError, match=message):
        checkpoints.restore(
            tmp_path, 5, {path: tf.Variable(value) for path, value in wanted.items()}
        )


def test_a_damaged_checkpoint_ends_in_one_line(tmp_path):
    saved = variables((3, 2))
    (checkpoints.save(tmp_path, 5, saved, {}) / "variables.index").write_bytes(b"nonsense")
    with pytest.raises(TfrecError, match="not a readable checkpoint") as caught:
        checkpoints.restore(tmp_path, 5, saved)
    assert "\n" not in str(caught.value)


def test_keep_removes_the_others_and_drafts(tmp_path):
    for step in (9, 10, 100):
        checkpoints.save(tmp_path, step, variables((2,)), {})
    (tmp_path / "draft-1").mkdir()
    for name in ("step-of-mine", "draft-of-mine"):
        (tmp_path / name).mkdir()
    assert checkpoints.steps(tmp_path) == [9, 10, 100]
    checkpoints.keep(tmp_path, {10, 100})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "draft-of-mine",
        "step-10",
        "step-100",
        "step-of-mine",
    ]


def test_a_write_that_breaks_off_leaves_no_checkpoint(tmp_path):
    with pytest.raises(TypeError):
        checkpoints.save(tmp_path, 5, variables((2,)), {"epoch": object()})
    assert checkpoints.steps(tmp_path) == []
