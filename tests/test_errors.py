"""What scripts say in one line, and what keeps its traceback."""

import errno
import os

import pytest
import tensorflow as tf

from tfrec import cli as command
from tfrec.errors import reason


def test_what_the_machine_lacks_is_a_reason_and_a_bug_is_none(tmp_path):
    with pytest.raises(tf.errors.OpError) as disk:
        tf.io.write_file(str(tmp_path), "a folder")
    assert reason(disk.value).endswith(os.strerror(errno.EISDIR))
    memory = tf.errors.ResourceExhaustedError(
        None, None, "Graph execution error:\n\nDetected at node X\nOOM when allocating tensor [9]"
    )
    assert reason(memory) == "not enough memory (OOM when allocating tensor [9])"
    assert reason(MemoryError()) == "not enough memory"
    assert reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))) == os.strerror(errno.ENOSPC)
    with pytest.raises(tf.errors.InvalidArgumentError) as bug:
        tf.reshape(tf.zeros([3]), [2])
    assert reason(bug.value) is None and reason(ValueError("x")) is None


def test_a_bug_of_a_graph_keeps_its_traceback():
    with pytest.raises(tf.errors.InvalidArgumentError):
        command._guarded(lambda words: tf.reshape(tf.zeros([3]), [2]), ["x.py"])


def test_no_memory_is_one_line(capsys):
    def main(words):
        raise MemoryError("Unable to allocate 9 TiB")

    with pytest.raises(SystemExit, match="1"):
        command._guarded(main, ["x.py"])
    assert (
        "not enough memory (Unable to allocate 9 TiB). Take a smaller --batch_size"
        in capsys.readouterr().err
    )
