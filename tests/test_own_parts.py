"""Parts from files of the user's own: what is wrong with one is said in a line."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

import tfrec
from tests.end_to_end.scripts import script
from tests.worlds import write_1m
from tfrec.experiments import tuning
from tfrec.experiments.config import make_config
from tfrec.settings import fields

MODEL = """
import dataclasses
import tfrec


class Mine(tfrec.Recommender):
    @dataclasses.dataclass(frozen=True)
    class Settings:
        width: int = tfrec.setting(4, "width of the factors", low=1)

    def __init__(self, train, settings):
        super().__init__(name="mine")
        self.users = tfrec.layers.Embedding(train.num_users, {"x": settings.width}, "user")
        self.products = tfrec.layers.Embedding(train.num_products, {"z": settings.width}, "product")

    def score(self, batch, products, training=False):
        return tfrec.layers.dot(self.users(batch["user"])["x"], self.products(products)["z"])
"""


def write(folder: Path, old: str = "", new: str = "") -> str:
    """The file, with something else in it; what --model takes."""
    assert old in MODEL
    (folder / "mine.py").write_text(MODEL.replace(old, new) if old else MODEL)
    return f"{folder / 'mine.py'}:Mine"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("(tfrec.Recommender)", "", r"--model=.*:Mine: it is no subclass of Recommender\."),
        ("class Mine", "class Mine(", r"--model=.*mine\.py cannot be imported \(.*\)\."),
        ("class Mine", "class Other", r"--model=.*: there is no class Mine in .*mine\.py\."),
        ("width: int", "batch_size: int", r"--batch_size: Mine and Training both have it\."),
        ("width: int", "seed: int", r"--seed: Recommender\.from_data and Mine both have it\."),
        ("width: int", "width: dict", r"--width: a setting of Mine is declared by tfrec\.setting"),
        (
            'tfrec.setting(4, "width of the factors", low=1)',
            "4",
            r"--width: a setting of Mine is declared by tfrec\.setting\(default, help\)",
        ),
    ],
)
def test_a_part_that_cannot_be_is_one_line(tmp_path, old, new, message):
    model = write(tmp_path, old, new)
    with pytest.raises(tfrec.UsageError, match=f"^{message}") as error:
        make_config(model=model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("flags", [["--width=3"], ["--help"], []])
def test_the_command_line_says_so_too(tmp_path, flags):
    model = write(tmp_path, "class Mine", "class Mine(")
    message = script("train", f"--model={model}", *flags, code=2)
    assert message.startswith("train.py: --model=") and "cannot be imported" in message


def test_types_may_be_written_as_texts(tmp_path):
    model = write(
        tmp_path, "import dataclasses", "from __future__ import annotations\nimport dataclasses"
    )
    assert make_config(model=model, width=7).width == 7
    with pytest.raises(tfrec.UsageError, match=r"^--width='a': expected int\."):
        make_config(model=model, width="a")


def test_an_edited_file_is_read_anew(tmp_path):
    assert make_config(model=write(tmp_path)).width == 4
    assert make_config(model=write(tmp_path, "setting(4", "setting(5")).width == 5


def test_a_search_knows_its_settings(tmp_path):
    own = fields(make_config(model=write(tmp_path)).parts["model"])
    found = tuning.parse("width=2..4", own)
    assert {found.draw(0, trial) for trial in range(50)} == {2, 3, 4}
    with pytest.raises(tfrec.UsageError, match="there is no setting width"):
        tuning.parse("width=2..4")


def test_a_run_whose_file_has_gone_takes_its_copy(tmp_path, monkeypatch, capsys):
    model, world = write(tmp_path), write_1m(tmp_path / "world")
    monkeypatch.chdir(tmp_path)
    settings = {"dataset": "1m", "data_dir": str(world), "epochs": 1, "batch_size": 64}
    run = tfrec.train(model="mine.py:Mine", workdir=str(tmp_path / "run"), **settings)
    best = run.recommend(user=7, k=3)
    tf.keras.backend.clear_session()
    os.remove(model.rpartition(":")[0])
    opened = tfrec.Run.open(tmp_path / "run")
    assert "mine.py is no longer there; its copy" in capsys.readouterr().out
    assert opened.recommend(user=7, k=3)["product"].tolist() == best["product"].tolist()
