"""What this process may use of the machine."""

import contextlib
import os
from pathlib import Path

import tensorflow as tf


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes that a process may still take.

    What the machine has left, or its control group, if that is less.
    """
    found = [2**62]
    with contextlib.suppress(OSError, ValueError, IndexError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    with contextlib.suppress(OSError, ValueError):  # no file, or "max"
        group = Path("/sys/fs/cgroup")
        found.append(
            int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
        )
    return min(found)


def limit_intra_op_threads() -> None:
    """On two cores no operation is split over threads; call it before TensorFlow touches a device.

    Two operations of a step run side by side anyway, and a split one waits for a thread that has no
    core to run on: at batch 1,024 mf, ncf and hybrid train 1.1 to 1.4 times as fast without.
    """
    if cores() <= 2 and "TF_NUM_INTRAOP_THREADS" not in os.environ:
        with contextlib.suppress(RuntimeError):  # TensorFlow runs already
            tf.config.threading.set_intra_op_parallelism_threads(1)
