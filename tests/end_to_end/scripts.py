"""The scripts, run in this process: one of its own would import TensorFlow anew, for 8 seconds.

test_train.py and test_cluster.py run them as processes.
"""

import contextlib
import io
import runpy
import sys
from pathlib import Path

from absl import flags

SCRIPTS = Path(__file__).parents[2] / "scripts"


def script(name: str, *words: str, code: int = 0) -> str:
    """What scripts/NAME.py prints, or says where it ends in the code; an error is one line."""
    out, errors, argv = io.StringIO(), io.StringIO(), sys.argv
    before = set(flags.FLAGS)
    path = str(SCRIPTS / f"{name}.py")
    sys.argv = [path, *words]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            runpy.run_path(path, run_name="__main__")
        ended = 0
    except SystemExit as end:
        ended = end.code or 0
    finally:
        sys.argv = argv
        for flag in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, flag)
    assert ended == code, out.getvalue() + errors.getvalue()
    assert errors.getvalue().count("\n") == (code != 0)
    return errors.getvalue() if code else out.getvalue()
