import errno
import fcntl
import os
import time

import pytest

from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import workdirs
from tfrec.experiments.config import make_config


def config(path, **changes):
    return make_config(workdir=str(path), **changes)


def test_settings_are_written_and_recognised(tmp_path):
    for _ in range(2):
        with workdirs.open_workdir(config(tmp_path / "a" / "b", epochs=3)) as workdir:
            assert (workdir / "config.flags").read_text() == make_config(epochs=3).flagfile()


def test_other_settings_are_named(tmp_path):
    with workdirs.open_workdir(config(tmp_path)):
        pass
    with (
        pytest.raises(
            UsageError, match=r"another biases, epochs, full_ranking, k, relevance_threshold\. "
        ),
        workdirs.open_workdir(
            config(
                tmp_path, epochs=3, biases=False, k=(1,), relevance_threshold=4.0, full_ranking=True
            )
        ),
    ):
        pass


def test_a_run_may_go_on_on_other_devices_until_it_is_finished(tmp_path):
    elsewhere = config(tmp_path, strategy="mirrored", virtual_devices=2)
    for settings, there in ((config(tmp_path), config(tmp_path)), (elsewhere, elsewhere)):
        with workdirs.open_workdir(settings):
            assert (tmp_path / "config.flags").read_text() == there.flagfile()
    (tmp_path / "metrics.json").write_text("{}")
    with workdirs.open_workdir(config(tmp_path)):
        assert (
            tmp_path / "config.flags"
        ).read_text() == elsewhere.flagfile()  # what made the result


def test_a_strangers_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.doc").write_text("")
    with pytest.raises(UsageError, match="not empty"), workdirs.open_workdir(config(tmp_path)):
        pass
    assert os.listdir(tmp_path) == ["thesis.doc"]


@pytest.mark.parametrize("begun", [False, True])
def test_what_a_killed_process_left_is_cleaned_up(tmp_path, begun):
    if begun:
        with workdirs.open_workdir(config(tmp_path)):
            pass
    (tmp_path / "config.flags.draft-1").write_text("half")
    (tmp_path / "export.draft-1").mkdir()
    (tmp_path / "export.draft-1" / "variables").write_text("half")
    with workdirs.open_workdir(config(tmp_path)):
        assert os.listdir(tmp_path) == ["config.flags"]


def test_one_process_at_a_time(tmp_path):
    with (
        workdirs.open_workdir(config(tmp_path)),
        pytest.raises(UsageError, match="another process is at work there"),
        workdirs.open_workdir(config(tmp_path)),
    ):
        pass
    with workdirs.open_workdir(config(tmp_path)):
        pass


def test_the_default_folder_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    for dataset, name in (
        ("100k", "runs/100k-mf-now"),
        ("blocks:data/mine", "runs/mine-mf-now"),
        ("tfds:a/b", "runs/b-mf-now"),
    ):
        for expected in (name, f"{name}-2", f"{name}-3"):
            assert workdirs.default(make_config(dataset=dataset, model="mf")) == expected
            os.makedirs(expected)


def test_a_file_system_without_locks_ends_in_one_line(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(TfrecError, match=r"cannot be locked \(Function not implemented\)"),
        workdirs.open_workdir(config(tmp_path)),
    ):
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(TfrecError, match="cannot be written"),
        workdirs.open_workdir(config(tmp_path / "file" / "run")),
    ):
        pass
