"""What a command writes for its user replaces nothing but what tfrec itself wrote."""

import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from tfrec.data import prepare
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import exported, workdirs
from tfrec.experiments.config import make_config
from tfrec.system import outputs
from tfrec.system.locked import locked


def export(folder: Path, name: str = "saved_model.pb") -> None:
    with outputs.exported(folder) as draft:
        (draft / name).write_text("model")


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("strange", ["thesis.doc", "saved_model.pb", "tfrec.json and thesis.doc"])
def test_an_export_leaves_a_strangers_folder_alone(tmp_path, strange):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in strange.split(" and "):
        (folder / name).write_text("years of work")
    before = files(tmp_path)
    with pytest.raises(
        UsageError,
        match=r"^folder=.*mine: the folder holds something else than an export of tfrec's\. ",
    ):
        export(folder)
    assert files(tmp_path) == before and os.listdir(tmp_path) == ["mine"]


def test_an_export_goes_into_a_new_an_empty_and_an_older_folder_of_its_own(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for folder in (tmp_path / "new" / "deep", tmp_path / "empty", tmp_path / "link"):
        for _ in range(2):
            export(folder)
            outputs.check_whole(folder, "")
            assert set(os.listdir(folder)) == {"saved_model.pb", "tfrec.json"}
    assert (tmp_path / "link").is_symlink() and len(os.listdir(tmp_path)) == 3


def test_in_a_runs_folder_a_damaged_export_is_replaced(tmp_path):
    (tmp_path / "config.flags").write_text("")
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "saved_model.pb").write_text("half")  # of older code, without a mark
    export(tmp_path / "export")
    outputs.check_whole(tmp_path / "export", "")


@pytest.mark.parametrize("place", ["file", "file/below", "."])
def test_an_export_that_cannot_be_written_ends_in_one_line_with_the_reason(
    tmp_path, monkeypatch, place
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        TfrecError,
        match=r"cannot be written \((it is a file|it is the working folder|Not a directory)\)",
    ) as caught:
        export(Path(place))
    assert caught.value.exit_code == 1 and files(tmp_path) == {"file": "mine"}


@pytest.mark.parametrize("letter", ["*", "?", "[", "\\"])
def test_a_name_that_tensorflow_takes_for_a_pattern_is_refused(tmp_path, letter):
    folder = tmp_path / f"a{letter}1]"
    with (
        pytest.raises(UsageError, match="for a pattern"),
        workdirs.open_workdir(make_config(workdir=str(folder))),
    ):
        pass
    with pytest.raises(UsageError, match="for a pattern"):
        export(folder)
    assert not os.listdir(tmp_path)


def test_a_killed_exports_draft_is_cleared_unless_its_process_lives(tmp_path):
    for name in ("out.draft-1", "out.draft-2", "out.draft-of-mine", "other.draft-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "variables").write_text("half")
    with locked(tmp_path / "out.draft-2", ""):
        export(tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"out", "out.draft-2", "out.draft-of-mine", "other.draft-3"}


def test_a_failed_export_leaves_what_was_there(tmp_path):
    export(tmp_path / "out")
    with pytest.raises(ZeroDivisionError), outputs.exported(tmp_path / "out") as draft:
        (draft / "saved_model.pb").write_text(str(1 / 0))
    assert (
        os.listdir(tmp_path) == ["out"]
        and (tmp_path / "out" / "saved_model.pb").read_text() == "model"
    )


@pytest.mark.parametrize("damage", ["", "half", "flip", None])
def test_a_changed_file_of_an_export_is_told(tmp_path, damage):
    export(tmp_path / "out")
    file = tmp_path / "out" / "saved_model.pb"
    content = file.read_text()
    file.unlink() if damage is None else file.write_text(
        {"": "", "half": content[:2], "flip": "lodel"}[damage]
    )
    with pytest.raises(TfrecError, match=re.escape(str(tmp_path / "out")) + ".*Make it anew"):
        outputs.check_whole(tmp_path / "out", "Make it anew.")


@pytest.mark.parametrize("damage", ["", '{"saved_m', "[]", "{}", "[1]", "\udcff"])
def test_a_damaged_mark_is_told(tmp_path, damage):
    export(tmp_path / "out")
    (tmp_path / "out" / "tfrec.json").write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.raises(TfrecError, match=r"tfrec\.json"):
        outputs.check_whole(tmp_path / "out", "")


def test_a_file_that_the_command_did_not_write_is_kept(tmp_path):
    file = tmp_path / "ratings.csv"
    outputs.check_file(file, "--output=x", False)
    file.write_text("")
    outputs.check_file(file, "--output=x", False)
    file.write_text("user,product\n")
    outputs.check_file(file, "--output=x", True)
    for place in (file, tmp_path):
        with pytest.raises(UsageError, match=r"^--output=x: (the file is there|it is a folder)"):
            outputs.check_file(place, "--output=x", False)


def test_only_drafts_of_tfrecs_own_are_removed_from_a_run(tmp_path):
    (tmp_path / "thesis.doc.draft-1").write_text("years of work")
    with (
        pytest.raises(UsageError, match="not empty"),
        workdirs.open_workdir(make_config(workdir=str(tmp_path))),
    ):
        pass
    assert os.listdir(tmp_path) == ["thesis.doc.draft-1"]


def test_prepare_leaves_a_strangers_folder_alone_that_has_its_drafts_name(tmp_path):
    (tmp_path / "out.draft").mkdir()
    (tmp_path / "out.draft" / "chapter").write_text("years of work")
    with pytest.raises(UsageError, match=r"out\.draft is needed, and holds something else"):
        prepare.prepare(make_config(dataset="latest-small").data, tmp_path / "out")
    assert files(tmp_path) == {"out.draft/chapter": "years of work"}


def test_recommendations_and_measurements_know_their_own_files(tmp_path):
    from benchmarks import main

    table = pd.DataFrame([(1, 1, 7, "x", 2.0, "model")], columns=list(exported.RECOMMENDED))
    table.to_parquet(tmp_path / "own.parquet", index=False)
    table.to_csv(tmp_path / "own.csv", index=False)
    (tmp_path / "other.csv").write_text("user,product\n1,2\n")
    (tmp_path / "other.parquet").write_text("PAR")
    for name in ("own", "other"):
        for suffix in ("csv", "parquet"):
            assert exported._is_ours(tmp_path / f"{name}.{suffix}") == (name == "own")
    for text, own in (
        (json.dumps([{"suite": "train"}]), True),
        ("[]", True),
        ("{}", False),
        ("[1]", False),
        ("x", False),
    ):
        (tmp_path / "rows.json").write_text(text)
        assert main._is_ours(tmp_path / "rows.json") == own
