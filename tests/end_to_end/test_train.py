"""scripts/train.py as a person runs it."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.scripts import script
from tests.worlds import write_1m
from tfrec.errors import TfrecError
from tfrec.experiments import run
from tfrec.experiments.flags import from_args

ROOT = Path(__file__).parents[2]
FIGURES = ("validation", "test", "baselines", "parameters")


def command(*flags):
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *flags]


def result(workdir):
    return json.loads((workdir / "metrics.json").read_text())


@pytest.fixture(scope="module")
def main_job(tmp_path_factory):
    """The main job on the built-in data, mirrored over two virtual devices."""
    workdir = tmp_path_factory.mktemp("runs") / "main"
    flags = ("--model=ncf", "--strategy=mirrored", "--virtual_devices=2", f"--workdir={workdir}")
    done = subprocess.run(command(*flags), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return workdir, done


def test_main_job_beats_the_bias_baseline(main_job):
    workdir, done = main_job
    found = result(workdir)
    assert (
        found["test"]["rmse"]
        < found["baselines"]["bias"]["rmse"]
        < found["baselines"]["global_mean"]["rmse"]
    )
    assert {"rmse", "mae", "mape", "r2", "fcp", "reference_mrr@5"} <= found["test"].keys()
    assert found["test"].keys() == found["validation"].keys()
    assert found["train"].keys() == {"seconds", "examples_per_second", "epochs", "best_epoch"}
    assert (found["model"], found["task"], found["split"]) == ("ncf", "rating", "user_temporal")
    assert done.stderr == ""
    assert f"{found['test']['rmse']:.4f}" in done.stdout


def test_main_job_leaves_the_run_folder_of_the_design(main_job):
    workdir, _ = main_job
    assert {path.name for path in workdir.iterdir()} == {
        "config.flags",
        "checkpoints",
        "refit",
        "logs",
        "metrics.json",
        "users.npz",
        "export",
        "plots",
    }


def test_table_is_aligned(main_job):
    lines = main_job[1].stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("test "))
    table = lines[start : start + 4]
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table] == [
        "test",
        "ncf",
        "baseline",
        "baseline",
    ]


def test_a_finished_run_is_left_as_it_is(main_job):
    workdir, first = main_job
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    again = script("train", f"--flagfile={workdir / 'config.flags'}", f"--workdir={workdir}")
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before
    assert "finished" in again
    assert again.splitlines()[-1] == first.stdout.splitlines()[-1]


def test_the_export_answers_without_tfrec(main_job):
    """In a process that cannot import tfrec; unknown ids and the default context, too."""
    script = f"""
import sys
sys.modules["tfrec"] = None
import tensorflow as tf
score = tf.saved_model.load({str(main_job[0] / "export")!r}).signatures["score"]
user, product = tf.constant([1, 1, -7, -7], tf.int64), tf.constant([1, 10**9, 1, 10**9], tf.int64)
none = tf.zeros([0], tf.int64)
for context in (tf.zeros([0, 2]), tf.zeros([4, 2])):
    answer = score(user=user, product=product, context=context, timestamp=none)
    print(answer["rating"].numpy().tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd="/"
    )
    by_default, by_context = (json.loads(line) for line in done.stdout.splitlines())
    assert by_default == by_context
    assert all(0.5 <= rating <= 5 for rating in by_default)
    assert len(set(by_default)) == 4


def test_killed_and_run_again_ends_like_uninterrupted(tmp_path):
    flags = (
        "--model=mf",
        "--batch_size=64",
        "--epochs=2",
        "--steps_per_loop=100",
        "--deterministic",
        "--early_stopping=0",
    )
    script("train", *flags, f"--workdir={tmp_path / 'whole'}")
    cut = tmp_path / "cut"
    process = subprocess.Popen(command(*flags, f"--workdir={cut}"), stdout=subprocess.DEVNULL)
    while not list(cut.glob("checkpoints/step-*")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.2)  # into the second epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (cut / "metrics.json").exists()
    script("train", *flags, f"--workdir={cut}")
    for part in FIGURES:
        assert result(cut)[part] == result(tmp_path / "whole")[part]
    assert not list(cut.glob("**/*draft*"))


def test_a_wrong_command_ends_in_one_line(tmp_path):
    done = subprocess.run(
        command("--modle=mf"), capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert done.returncode == 2
    message = "train.py: Unknown command line flag 'modle'. Did you mean: model ?\n"
    assert done.stderr == message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--model=nfc"], 2, r"--model=nfc: expected one of .*\. Did you mean ncf\?"),
        (["--data_dir=/nowhere"], 1, r"--data_dir=/nowhere: there is no such folder or file."),
        (["--epochs=many"], 2, r"--epochs=many: .*"),
        (["mf"], 2, r"mf: unexpected; settings are given as --NAME=VALUE."),
        (
            ["--model=content"],
            2,
            r"--model=content --task=rating: content only does --task=ranking.",
        ),
        (
            ["--strategy=mirrored", "--virtual_devices=2", "--batch_size=1023"],
            2,
            r"--batch_size=1023 cannot be divided .* Take 1022.",
        ),
        (["--workdir=/proc/run"], 1, r"--workdir=/proc/run: cannot be written .*"),
        (
            ["--workdir=/etc"],
            2,
            r"--workdir=/etc: the folder is not empty, and holds no run. Take another one.",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_line(flags, code, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TfrecError, match=f"^(flag )?{message}$") as error:
        run.train(from_args(flags))
    assert error.value.exit_code == code
    assert not list(tmp_path.iterdir())


def test_another_setting_on_the_same_folder_is_refused(main_job):
    flags = ("--model=ncf", "--seed=3", "--epochs=2", f"--workdir={main_job[0]}")
    line = script("train", *flags, code=2)
    assert re.fullmatch(r"train.py: --workdir=.* holds a run with another .*epochs.*seed.*\n", line)


def test_a_broken_file_ends_in_one_line(tmp_path):
    folder = write_1m(tmp_path / "data")
    lines = (folder / "ratings.dat").read_text().splitlines()
    (folder / "ratings.dat").write_text("\n".join([*lines[:6], "1::1::x::0", *lines[7:]]))
    flags = (
        "--dataset=1m",
        f"--data_dir={folder}",
        "--model=popularity",
        f"--workdir={tmp_path / 'run'}",
    )
    line = script("train", *flags, code=1)
    assert line.startswith('train.py: ratings.dat, row 7, column rating: "x" is not a number.')
    assert not (tmp_path / "run").exists()
    assert "ratings.dat: skipped 1 row" in script("train", *flags, "--on_bad_rows=skip")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    flags = (
        "--optimizer=sgd",
        "--learning_rate=1e6",
        "--model=mf",
        "--epochs=2",
        f"--workdir={tmp_path / 'run'}",
    )
    line = script("train", *flags, code=1)
    assert re.fullmatch(r"train.py: the loss is not finite at step \d+\. .*\n", line)
    assert not (tmp_path / "run" / "checkpoints").exists()
