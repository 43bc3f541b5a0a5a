"""Clusters for real.

Processes on this machine that talk over loopback, started by scripts/launch.py.
"""

import json
import os
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.end_to_end.clusters import SCRIPTS, launch, nobody_left, parts_of, result, until
from tests.worlds import write_1m
from tfrec.errors import UsageError
from tfrec.experiments import finished, loading, run, workdirs
from tfrec.experiments.config import make_config
from tfrec.training import checkpoints
from tfrec.training import launch as launch_module

CHECK = runpy.run_path(str(SCRIPTS / "launch.py"))["check"]


def train(workdir: Path, epochs: int) -> dict:
    """The same run in this process."""
    settings = {
        "model": "mf",
        "task": "rating",
        "split": "random",
        "early_stopping": 0,
        "batch_size": 512,
        "l2": 0.6,
    }
    return run.train(make_config(**settings, epochs=epochs, workdir=str(workdir))).record


def weights(workdir: Path) -> dict[str, np.ndarray]:
    folder = workdir / "checkpoints"
    reader = tf.train.load_checkpoint(
        str(folder / f"step-{max(checkpoints.steps(folder))}" / "variables")
    )
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.startswith("model")
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=nfc", "--workdir=x"], "--model=nfc: .* Did you mean ncf"),
        (["--modl=ncf", "--workdir=x"], "Unknown command line flag 'modl'"),
        (
            ["--model=ease", "--task=rating", "--workdir=x"],
            "--model=ease --task=rating: ease only does",
        ),
        (["ncf", "--workdir=x"], "ncf: unexpected"),
        (["--model=ncf"], "name the run's folder"),
    ],
)
def test_what_train_would_not_take_is_told_before_a_process_is_started(words, message):
    with pytest.raises(UsageError, match=message):
        CHECK(words)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """142 steps of one process."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train(workdir, 1)
    return workdir


def test_workers_in_step_end_in_the_weights_of_one_device(alone, tmp_path):
    launcher = launch(tmp_path / "two", "--epochs=1", "--profile_steps=10,20")
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, output
    assert len(list((tmp_path / "two").rglob("*.xplane.pb"))) == 1
    two, one = weights(tmp_path / "two"), weights(alone)
    assert two.keys() == one.keys()
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-5, err_msg=name)
    assert result(tmp_path / "two")["test"]["rmse"] == pytest.approx(
        result(alone)["test"]["rmse"], abs=1e-5
    )
    assert "[worker 1]" not in output  # one speaks
    assert nobody_left(tmp_path)


def test_parameter_servers_visit_each_row_and_leave_a_checkpoint_for_one_device(tmp_path):
    workdir, epochs = (
        tmp_path / "servers",
        8,
    )  # in the first, workers that are not in step are still behind
    launcher = launch(workdir, f"--epochs={epochs}", servers=2)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, output
    assert output.count("72,603 rows visited") == epochs and "72,603 rows to train" in output
    assert "products/table/0, products/table/1" in output  # it was large enough to be cut
    found = result(workdir)
    assert found["test"]["rmse"] == pytest.approx(
        train(tmp_path / "alone", epochs)["test"]["rmse"], abs=0.005
    )
    again = finished.evaluate(workdir, {})  # from the checkpoint, on one device
    for name in ("rmse", "fcp"):
        assert again["test"][name] == pytest.approx(found["test"][name], rel=1e-5)
    opened = run.Run.open(workdir)
    split, model = opened.split, opened.model
    server = tf.saved_model.load(str(workdir / "export"))
    user, product = split.test.user[:9], split.test.product[:9]
    times = np.zeros((0, 2), np.float32), np.zeros(0, np.int64)
    ids = split.catalog.user_ids[user], split.catalog.product_ids[product]
    answer = server.score(*ids, *times)
    known = answer["source"].numpy() == b"model"
    scores = model.score_candidates({"user": tf.constant(user)}, tf.constant(product)[:, None])[
        :, 0
    ].numpy()
    scores = model.output(tf.constant(scores), tf.constant(product)).numpy()
    np.testing.assert_allclose(
        answer["rating"].numpy()[known], np.clip(scores, 0.5, 5)[known], rtol=1e-5
    )
    assert nobody_left(tmp_path)


def test_a_leader_that_is_killed_when_the_run_is_finished_waits_for_nobody(capsys):
    """The other worker ends well, and would not be there when the leader comes back."""
    killed = subprocess.Popen(["sh", "-c", "kill -9 $$"])
    done, alone = subprocess.Popen(["sleep", "0.5"]), subprocess.Popen(["sleep", "60"])
    killed.wait()
    parts = [
        launch_module.Part("worker", index, 1, process, None)
        for index, process in enumerate((killed, done))
    ]
    try:
        assert launch_module._watch(parts, "worker", lambda *_: (alone, None), []) == 0
    finally:
        alone.kill()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("worker 0 ended with SIGKILL; it starts again")
    assert said[1:] == ["the run was finished when worker 0 died."]


@pytest.mark.cluster
@pytest.mark.parametrize("servers", (0, 2))
def test_sigterm_saves_and_asks_to_be_run_again(tmp_path, servers):
    launcher = launch(tmp_path / "run", "--epochs=2", servers=servers)
    until(launcher, "epoch    1")
    launcher.terminate()
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 75, output
    assert nobody_left(tmp_path)
    launcher = launch(tmp_path / "run", "--epochs=2", servers=servers)
    output, _ = launcher.communicate(timeout=300)
    assert launcher.returncode == 0 and "going on after epoch" in output
    assert nobody_left(tmp_path)


@pytest.mark.cluster
def test_what_servers_began_one_device_ends(tmp_path, capsys):
    launcher = launch(tmp_path / "run", "--epochs=3", servers=2)
    until(launcher, "epoch    1")
    launcher.terminate()
    output, _ = launcher.communicate(timeout=120)
    assert launcher.returncode == 75, output
    assert train(tmp_path / "run", 3)["train"]["epochs"] == 3  # the same folder, --strategy=default
    assert "going on after epoch" in capsys.readouterr().out
    assert result(tmp_path / "run")["test"]["rmse"] == pytest.approx(
        train(tmp_path / "alone", 3)["test"]["rmse"], abs=0.005
    )


LINGERS = """
import sys
from tfrec.experiments import run
from tfrec.experiments.flags import from_args
try:
    run.train(from_args(sys.argv[1:]))
except Exception:
    sys.stdin.read()  # as a notebook that shows the error
"""


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("fails", "why"),
    [(0, "holds something else"), (1, "nowhere")],
)
def test_who_fails_alone_tells_the_others_why(tmp_path, fails, why):
    """The chief, when it has trained and exports, or another worker, which has no data.

    Its process lives on, and no socket is closed.
    """
    settings = {
        "dataset": "1m",
        "data_dir": str(write_1m(tmp_path / "world")),
        "model": "mf",
        "task": "rating",
        "epochs": 1,
        "l2": 0.1,
    }
    folder = tmp_path / "run"
    with workdirs.open_workdir(loading.load(make_config(**settings, workdir=str(folder)))[1]):
        (folder / "export").mkdir()
        (folder / "export" / "somebody's").touch()
    words = [f"--{name}={value}" for name, value in settings.items()] + [
        "--strategy=multi_worker",
        f"--workdir={folder}",
    ]
    parts, addresses = [], launch_module._free_addresses(2)
    for index in (0, 1):
        task = json.dumps(
            {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        )
        command = (
            [sys.executable, "-c", LINGERS]
            if index == fails
            else [sys.executable, SCRIPTS / "train.py"]
        )
        own = [f"--data_dir={tmp_path}/nowhere"] if index == fails == 1 else []
        pipes = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "text": True,
        }
        parts.append(
            subprocess.Popen(
                [*command, *words, *own], env=os.environ | {"TF_CONFIG": task}, **pipes
            )
        )
    try:
        said, _ = parts[1 - fails].communicate(timeout=180)
        assert parts[fails].poll() is None
        assert parts[1 - fails].returncode == 1, said
        assert re.search(
            f"train.py: another process of the cluster failed: worker {fails}: .*{why}.*\n$", said
        ), said
    finally:
        for part in parts:
            part.kill()
            part.communicate()


OWN_LOOP = """
import sys
import numpy as np
import tfrec
from tfrec.training import strategies
strategy = strategies.make(sys.argv[1])
split = tfrec.load("1m", data_dir=sys.argv[2]).split("random")
with strategy.scope():
    model = tfrec.models.MatrixFactorization.from_data(split.train)
optimizer = tfrec.optimizers.SGD(0.1)
trainer = tfrec.Trainer(model, optimizer=optimizer, strategy=strategy, batch_size=64)
batches, cut = iter(split.train.batches(batch_size=64)), trainer.iterate(split.train, (0, 5))
losses = [float(trainer.step(*next(batches))) for _ in range(5)]
losses += [float(trainer.step(*next(cut))) for _ in range(5)]
weights = {name: weight.numpy() for name, weight in model.named_weights().items()}
np.savez(sys.argv[3], losses=losses, **weights)
"""


@pytest.mark.cluster
def test_a_loop_of_ones_own_makes_the_same_steps_on_several_machines(tmp_path):
    """By global batches, and by those that iterate has cut."""
    world, addresses, parts = write_1m(tmp_path / "world"), launch_module._free_addresses(2), []
    for index in (0, 1):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        words = ["multi_worker", str(world), str(tmp_path / f"{index}.npz")]
        environment = os.environ | {"TF_CONFIG": json.dumps(task)}
        parts.append(subprocess.Popen([sys.executable, "-c", OWN_LOOP, *words], env=environment))
    assert [part.wait(120) for part in parts] == [0, 0]
    words = ["default", str(world), str(tmp_path / "alone.npz")]
    subprocess.run([sys.executable, "-c", OWN_LOOP, *words], check=True)
    alone = np.load(tmp_path / "alone.npz")
    for index in (0, 1):
        found = np.load(tmp_path / f"{index}.npz")
        for name in alone:
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_reader_that_has_read_enough_does_not_hold_up_the_job():
    chatty = (
        "[sys.executable, '-c', 'print(\\'word \\' * 9, flush=True);' * 9 + 'print(\\'word "
        "\\' * 99999)']"
    )
    code = "import sys; from tfrec.training import launch; "
    code += f"sys.exit(launch.run({chatty}, 2, 0, 0))"
    launcher = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout and launcher.stdout.readline().startswith("[worker ")
    launcher.stdout.close()
    assert launcher.wait(60) in (0, 120)  # 120: Python could not flush its output


def test_who_was_killed_is_named_before_who_lost_it(capsys):
    """Both have ended when the launcher looks."""
    lost, killed = (
        subprocess.Popen(["sh", "-c", "exit 75"]),
        subprocess.Popen(["sh", "-c", "kill -9 $$"]),
    )
    for process in (lost, killed):
        process.wait()
    parts = [
        launch_module.Part("worker", index, 0, process, None)
        for index, process in enumerate((lost, killed))
    ]
    assert launch_module._watch(parts, "worker", None, []) == 75
    assert capsys.readouterr().out == "worker 1 ended with SIGKILL; that ends all.\n"


@pytest.mark.cluster
def test_a_launcher_that_is_killed_leaves_nobody(tmp_path):
    launcher = launch(tmp_path / "run", "--epochs=50", servers=1)
    while len(parts_of(launcher)) < 4:
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    deadline = time.monotonic() + 20
    while not nobody_left(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert nobody_left(tmp_path)
