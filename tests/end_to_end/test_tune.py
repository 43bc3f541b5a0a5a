"""tune.py, and train.py on what it found."""

import json
import re

import pytest

from tests.end_to_end.scripts import script
from tests.worlds import write_1m


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = write_1m(tmp_path_factory.mktemp("world"))
    return [
        "--dataset=1m",
        f"--data_dir={folder}",
        "--model=mf",
        "--optimizer=sgd",
        "--epochs=2",
        "--batch_size=128",
    ]


def test_the_best_settings_train_again_and_what_diverges_is_told(settings, tmp_path):
    search = [
        *settings,
        "--trials=3",
        "--range=learning_rate=0.05,1e9",
        "--seed=1",
        f"--workdir={tmp_path / 'search'}",
    ]
    text = script("tune", *search)
    assert re.search(r"trial \d failed: the loss is not finite at step \d+\. ", text)
    best = re.search(
        r"\n\ntrial  validation rmse  best epoch  seconds  learning_rate\n +(\d) +(0|1)\.(\d{4}) ",
        text,
    )
    script(
        "train", f"--flagfile={tmp_path / 'search' / 'best.flags'}", f"--workdir={tmp_path / 'run'}"
    )
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["validation"]["rmse"]
    assert found == pytest.approx(float(f"{best[2]}.{best[3]}"), abs=2e-4)
    trials = list((tmp_path / "search" / "trials").glob("*.json"))
    written = {path: path.stat().st_mtime_ns for path in trials}
    assert len(trials) == 3 and any("not finite" in path.read_text() for path in trials)
    assert script("tune", *search) == text  # everything is there already
    assert {path: path.stat().st_mtime_ns for path in trials} == written


def test_a_wrong_range_ends_in_one_line(settings, tmp_path):
    wrong = script(
        "tune", *settings, "--range=lerning_rate=1..2", f"--workdir={tmp_path / 'search'}", code=2
    )
    assert (
        wrong
        == "tune.py: --range=lerning_rate=1..2: there is no setting lerning_rate. Did you mean "
        "learning_rate?\n"
    )
    assert not (tmp_path / "search").exists()
