"""Each file of a run, damaged: one line that names it, or the very same figures."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.worlds import write_1m
from tfrec import comparison, finished, report, run, workdirs
from tfrec.config import Config, make_config
from tfrec.errors import Again, TfrecError
from tfrec.flags import from_words, read_flagfile
from tfrec.serving import recommend

DAMAGES = {
    "empty": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "random": lambda content: np.random.RandomState(0).bytes(len(content)),
    "flipped": lambda content: content[: len(content) // 3] + bytes([content[len(content) // 3] ^ 4]) + content[len(content) // 3 + 1 :],
    "missing": None,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run."""
    folder = write_1m(tmp_path_factory.mktemp("world"))
    settings = {
        "dataset": "1m",
        "data_dir": str(folder),
        "model": "mf",
        "embedding_dim": 4,
        "batch_size": 256,
    }
    run.train(make_config(**settings, epochs=2, workdir=str(folder / "finished")))
    return folder / "finished"


def config(folder: Path) -> Config:
    there = from_words([f"--flagfile={folder / 'config.flags'}"])
    return there.replace(workdir=str(folder))


ASK = {
    "train": lambda folder, settings: run.train(settings.replace(workdir=str(folder)))["test"],
    "evaluate": lambda folder, settings: finished.evaluate(folder, {})["test"],
    "recommend": lambda folder, settings: recommend.Served(folder).for_user("7", 3),
    "results": lambda folder, settings: report.of_runs([folder], ["rmse"]),
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
def test_a_damaged_file_of_a_finished_run_is_one_line_or_changes_nothing(whole, tmp_path, pattern, damage):
    settings, folder = config(whole), tmp_path / "run"
    shutil.copytree(whole, folder)
    files = [path for path in folder.glob(pattern) if path.is_file()]
    assert files
    for file in files:
        content = file.read_bytes()
        file.unlink() if damage == "missing" else file.write_bytes(DAMAGES[damage](content))
    ask = ASK if pattern.startswith(("config", "metrics", "users")) else {name: ASK[name] for name in ("evaluate", "recommend")}
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
            assert found.split() == ASK[name](whole, settings).replace(str(whole), str(folder)).split()


def test_checkpoints_that_are_gone_are_told(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    with pytest.raises(TfrecError, match="there is no checkpoint"):
        finished.reload(tmp_path / "run")


def test_settings_that_lost_their_last_lines_are_no_settings(tmp_path):
    with workdirs.opened(make_config(workdir=str(tmp_path), epochs=3)):
        pass
    lines = (tmp_path / "config.flags").read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        (tmp_path / "config.flags").write_text("".join(lines[:count]))
        with pytest.raises(TfrecError, match=r"config\.flags: the file is damaged"), workdirs.opened(make_config(workdir=str(tmp_path))):
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
    assert not isinstance(caught.value, Again)
