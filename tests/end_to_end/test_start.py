"""What needs no TensorFlow does not wait for it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    slow = {"tensorflow", "pandas", "duckdb", "matplotlib", "tensorflow_datasets"}
    print("loaded:", *sorted(slow & set(sys.modules)))
"""


def run(script: str, *args: str) -> tuple[int, str, str]:
    """Returns the exit code of a script, what it says, and which slow packages it loaded."""
    command = [sys.executable, "-c", RUN, str(ROOT / "scripts" / script), *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said, _, loaded = done.stdout.partition("loaded:")
    return done.returncode, said + done.stderr, loaded.strip()


def test_help_names_the_settings_of_every_run_and_the_parts():
    code, said, loaded = run("train.py", "--help")
    assert (code, loaded) == (0, "")
    for name in ("batch_size=1024", "dataset=latest-small", "strategy=default", "model=ncf"):
        assert f"  --{name}\n" in said
    assert "in_batch_softmax" in said and "rowwise_adagrad" in said and "user_knn" in said


@pytest.mark.parametrize(
    "args",
    [
        ["--dataset=files", "--interactions=nowhere.csv", "--model=mf"],
        ["--dataset=files", "--interactions=README.md", "--products=nowhere.csv"],
        ["--split=files", "--train_file=README.md", "--test_file=nowhere.csv"],
    ],
)
def test_a_missing_file_is_said_at_once(args):
    code, said, loaded = run("train.py", *args)
    assert (code, loaded) == (1, "")
    assert said == (
        "train.py: nowhere.csv: there is no such file. Is the path right, and the data set "
        "complete?\n"
    )


@pytest.mark.parametrize(
    "script", ["recommend.py", "export.py", "compare.py", "results.py", "prepare.py"]
)
def test_a_misspelt_flag_of_other_scripts_is_said_at_once(script):
    code, said, loaded = run(script, "--wrkdir=a")
    assert (code, loaded) == (2, "")
    assert said.startswith(f"{script}: Unknown command line flag 'wrkdir'")
    assert said.count("\n") == 1
