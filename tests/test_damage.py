"""Each file of a run, damaged: one line that names it, or the very same figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.worlds import write_1m
from tfrec.errors import Preempted, TfrecError
from tfrec.experiments import comparison, finished, per_user, report, run, workdirs
from tfrec.experiments.config import Config, make_config
from tfrec.experiments.exported import ExportedModel
from tfrec.experiments.flags import from_args, read_flagfile
from tfrec.experiments.run import Run
from tfrec.training import checkpoints
from tfrec.training.state import _read

DAMAGES = {
    "empty": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "random": lambda content: np.random.RandomState(0).bytes(len(content)),
    "flipped": lambda content: (
        content[: len(content) // 3]
        + bytes([content[len(content) // 3] ^ 4])
        + content[len(content) // 3 + 1 :]
    ),
    "missing": None,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run, whose last checkpoint is not its best one."""
    folder = write_1m(tmp_path_factory.mktemp("world"))
    settings = {
        "dataset": "1m",
        "data_dir": str(folder),
        "model": "mf",
        "embedding_dim": 4,
        "batch_size": 256,
    }
    settings |= {
        "batch_size": 64,
        "learning_rate": 0.1,
        "l2": 0.0,
        "epochs": 40,
        "early_stopping": 2,
    }  # it over-fits soon
    run.train(make_config(**settings, workdir=str(folder / "finished")))
    assert (
        len(checkpoints.steps(folder / "finished" / "checkpoints")) == 2
    )  # the best one, and the last
    return folder / "finished"


def config(folder: Path) -> Config:
    there = from_args([f"--flagfile={folder / 'config.flags'}"])
    return there.replace(workdir=str(folder))


ASK = {
    "train": lambda folder, settings: run.train(settings.replace(workdir=str(folder))).record[
        "test"
    ],
    "evaluate": lambda folder, settings: finished.evaluate(folder, {})["test"],
    "recommend": lambda folder, settings: ExportedModel(folder).for_user("7", 3),
    "results": lambda folder, settings: "\n".join(
        line.partition(" ")[2] for line in report.of_runs([folder], ["rmse"]).splitlines()
    ),
    "compare": lambda folder, settings: comparison.compare([folder, folder], ["rmse"], 100, 0),
}
FILES = [
    "config.flags",
    "metrics.json",
    "users.npz",
    "checkpoints/*/state.json",
    "checkpoints/*/variables.*",
    "export/*",
    "export/variables/*",
]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file_of_a_finished_run_is_one_line_or_changes_nothing(
    whole, tmp_path, pattern, damage
):
    settings, folder = config(whole), tmp_path / "run"
    shutil.copytree(whole, folder)
    files = [path for path in folder.glob(pattern) if path.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink() if damage == "missing" else file.write_bytes(DAMAGES[damage](content))
    ask = (
        ASK
        if pattern.startswith(("config", "metrics", "users"))
        else {name: ASK[name] for name in ("evaluate", "recommend")}
    )
    for name, call in ask.items():
        if damage == "missing" and pattern in ("config.flags", "metrics.json") and name == "train":
            continue  # there is no finished run: it goes on, or begins
        try:
            found = call(folder, settings)
        except TfrecError as error:
            assert "\n" not in str(error) and str(folder) in str(error), name
            continue
        if isinstance(found, dict):
            assert found == pytest.approx(ASK[name](whole, settings), rel=1e-6)
        else:
            assert (
                found.split() == ASK[name](whole, settings).replace(str(whole), str(folder)).split()
            )


def test_checkpoints_that_are_gone_are_told(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "refit")
    with pytest.raises(TfrecError, match="there is no checkpoint"):
        Run.open(tmp_path / "run")


def test_settings_that_lost_their_last_lines_are_no_settings(tmp_path):
    with workdirs.open_workdir(make_config(workdir=str(tmp_path), epochs=3)):
        pass
    lines = (tmp_path / "config.flags").read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        (tmp_path / "config.flags").write_text("".join(lines[:count]))
        with (
            pytest.raises(TfrecError, match=r"config\.flags: the file is damaged"),
            workdirs.open_workdir(make_config(workdir=str(tmp_path))),
        ):
            pass
    assert read_flagfile(tmp_path / "config.flags").flagfile()


def test_a_damaged_state_of_an_unfinished_run_is_told(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "metrics.json").unlink()
    for state in folder.glob("checkpoints/*/state.json"):
        values = json.loads(state.read_text())
        state.write_text(json.dumps(values | {"best_step": values["best_step"] + 1}))
    with pytest.raises(TfrecError, match=r"state\.json: the file is damaged.*Remove") as caught:
        run.train(config(folder))
    assert not isinstance(caught.value, Preempted)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_of_an_unfinished_run_is_told_before_it_trains(whole, tmp_path, damage):
    """The best checkpoint's too, which is wanted in the end only; its state.json is not read."""
    folder = tmp_path / "run"
    best, last = checkpoints.steps(whole / "checkpoints")
    files = [
        whole / "config.flags",
        *whole.glob(f"checkpoints/step-{last}/*"),
        *whole.glob(f"checkpoints/step-{best}/variables.*"),
    ]
    if (
        damage == "flipped"
    ):  # in the best one it may fall on what is not read again, the optimiser's
        files = [file for file in files if f"step-{best}/" not in str(file)]
    settings = config(whole).replace(workdir=str(folder))
    for name in [str(file.relative_to(whole)) for file in files]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / "metrics.json").unlink()
        content = (folder / name).read_bytes()
        (folder / name).unlink() if damage == "missing" else (folder / name).write_bytes(
            DAMAGES[damage](content)
        )
        with pytest.raises(TfrecError, match=str(folder)) as caught:
            run.train(settings)
        message = str(caught.value)
        assert (
            "\n" not in message and "{{" not in message and not isinstance(caught.value, Preempted)
        )
        if f"step-{last}/" in name:
            assert f"Remove {folder}/checkpoints/step-{last}: the run goes on" in message
        if f"step-{best}/" in name:
            assert f"Remove {folder}/checkpoints: the run begins anew." in message


def test_damaged_logs_and_pictures_hurt_nobody(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for file in [*folder.glob("logs/**/*"), *folder.glob("plots/*")]:
        if file.is_file():
            file.write_bytes(DAMAGES["random"](file.read_bytes()))
    for name in ("train", "recommend", "results"):
        found, wanted = (
            ASK[name](there, config(whole).replace(workdir=str(there))) for there in (folder, whole)
        )
        assert (
            str(found).replace(str(folder), "").split()
            == str(wanted).replace(str(whole), "").split()
        )


def test_no_flipped_byte_of_a_small_file_gives_other_metrics(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    last = checkpoints.steps(folder / "checkpoints")[-1]
    read = {
        "metrics.json": lambda: workdirs.metrics(folder)["test"],
        "users.npz": lambda: {
            name: array.tolist() for name, array in per_user.read(folder).items() if name != "auc"
        },
        f"checkpoints/step-{last}/state.json": lambda: vars(_read(folder / "checkpoints", last)),
    }
    for name, reader in read.items():
        content, wanted = (folder / name).read_bytes(), reader()
        last_part = range(
            max(0, len(content) - 1500), len(content), 3
        )  # the list of what is in a zip; a checksum
        for at in (
            last_part
            if name == "users.npz"
            else [*range(0, len(content), 29), *range(len(content) - 40, len(content))]
        ):
            (folder / name).write_bytes(
                content[:at] + bytes([content[at] ^ 64]) + content[at + 1 :]
            )
            try:
                found = reader()
            except TfrecError as error:
                assert "\n" not in str(error) and str(folder) in str(error)
                continue
            assert found == wanted, f"{name}, byte {at}"
        (folder / name).write_bytes(content)
