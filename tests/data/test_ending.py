"""A process ends while its pipeline runs ahead."""

import os
import subprocess
import sys
from pathlib import Path

TAKE = """
import tfrec
from tfrec.data.batches import BatchSettings
from tfrec.data.negatives import Negatives

train = tfrec.load("latest-small").split("random").train
pipelines = []
for size, drawn in ((1024, 0), (4096, 0), (8192, 0), (4096, 60)):
    how = Negatives(drawn) if drawn else None
    made = train.batches_of(BatchSettings(size, 0, how, columns=(), ordered=True))
    pipelines.append(iter(made))
    for _ in range(20):
        next(pipelines[-1])
"""


def test_a_process_ends_while_batches_are_ordered():
    """One whose threads of TensorFlow's stood in numpy never ended, six times in eight."""
    slow = os.environ | {"TF_NUM_INTRAOP_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", TAKE], env=slow, cwd=root, timeout=120)
    assert done.returncode == 0
