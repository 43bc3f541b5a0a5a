"""recommend.py, evaluate.py and export.py on one finished run."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import some_config
from tests.end_to_end.scripts import script
from tests.worlds import write_1m
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import finished, run
from tfrec.experiments.exported import ExportedModel
from tfrec.experiments.run import Run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = write_1m(tmp_path_factory.mktemp("world"))
    run.train(
        some_config(
            dataset="1m",
            data_dir=str(folder),
            model="hybrid",
            embedding_dim=8,
            epochs=5,
            batch_size=64,
            workdir=str(folder / "run"),
        )
    )
    return folder / "run"


@pytest.fixture(scope="module")
def served(workdir):
    return ExportedModel(workdir)


def test_recommends_to_a_user_beside_the_held_out_truth(workdir):
    text = script("recommend", f"--workdir={workdir}", "--user=7", "--k=5")
    recommended, held_out = text.split("\n\n")
    lines = recommended.splitlines()
    assert lines[0] == "user 7 (model)" and lines[1].split() == [
        "rank",
        "product",
        "title",
        "genres",
        "score",
    ]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3", "4", "5"]
    scores = [float(line.split()[-1]) for line in lines[2:]]
    assert scores == sorted(scores, reverse=True)
    count, hits = map(
        int, re.match(r"held out: (\d+) products, of which (\d) are recommended", held_out).groups()
    )
    assert count >= hits == sum(line.endswith("hit") for line in held_out.splitlines()[2:])


def test_recommends_to_somebody_who_is_not_in_the_data(workdir):
    text = script("recommend", f"--workdir={workdir}", "--like=film 3 (1963); 9", "--k=3")
    assert text.startswith("likes Film 3 (1963); Film 4 (1964) (fold_in)\n")
    assert len(text.splitlines()) == 5
    assert "Film 3 " not in text.split("\n", 1)[1]


def test_recommends_to_somebody_of_whom_only_attributes_are_known(workdir):
    text = script("recommend", f"--workdir={workdir}", "--about=gender=F; age=25-34", "--k=3")
    assert text.startswith("about gender=F; age=25-34 (demographic)\n")
    assert len(text.splitlines()) == 5


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_recommends_to_everybody(workdir, tmp_path, suffix):
    output = tmp_path / f"recs.{suffix}"
    assert (
        script("recommend", f"--workdir={workdir}", "--all", "--k=4", f"--output={output}")
        == f"240 rows in {output}\n"
    )
    table = pd.read_parquet(output) if suffix == "parquet" else pd.read_csv(output)
    assert list(table) == ["user", "rank", "product", "title", "score", "source"]
    assert (table.groupby("user")["rank"].apply(list).map(tuple) == (1, 2, 3, 4)).all()
    assert table["user"].nunique() == 60 and (table["source"] == "model").all()
    assert (table.groupby("user")["score"].diff().fillna(0) <= 0).all()
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--user=--3"], r"--user=--3: there is no such user\..*"),
        (["--user=7", "--all", "--output=x.csv"], r"say for whom: .*"),
        (["--all"], r"--all and --output=FILE go together\."),
    ],
)
def test_a_wrong_question_ends_in_one_line(workdir, flags, message):
    assert re.fullmatch(
        f"recommend.py: {message}\n", script("recommend", f"--workdir={workdir}", *flags, code=2)
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda served: served.for_user("7777", 3), r"--user=7777: there is no such user\."),
        (
            lambda served: served.for_likes("Film 333 (1963)", 3),
            r"--like: there is no product Film 333 \(1963\)\. Did you mean Film 33? ",
        ),
        (lambda served: served.for_likes(";", 3), r"--like: the list is empty\."),
        (
            lambda served: served.for_attributes("gender=G", 3),
            r"--about: there is no attribute gender=G\. Did you mean gender=[FM]\?",
        ),
        (lambda served: served.for_attributes(";", 3), r"--about: the list is empty\."),
        (
            lambda served: served.for_all(Path("recs.xls"), 3),
            r"--output=recs.xls: expected a name that ends in .parquet or .csv\.",
        ),
    ],
)
def test_what_is_wrong_with_a_question_is_told(served, ask, message):
    with pytest.raises(UsageError, match=f"^{message}"):
        ask(served)


def test_evaluated_once_more_a_run_has_the_metrics_that_it_had(workdir):
    known, again = (
        json.loads((workdir / "metrics.json").read_text()),
        finished.evaluate(workdir, {}),
    )
    assert again["test"] == pytest.approx(known["test"], rel=1e-5)
    for kind, of_kind in known["slices"].items():
        for name, metrics in of_kind.items():
            assert again["slices"][kind][name] == pytest.approx(metrics, rel=1e-5), name


@pytest.mark.parametrize(
    "ask", [ExportedModel, lambda folder: finished.evaluate(folder, {}), Run.open]
)
def test_without_a_finished_run_there_is_one_line(tmp_path, ask):
    with pytest.raises(
        UsageError, match=f"^--workdir={tmp_path}: there is no run in this folder.$"
    ):
        ask(tmp_path)


def test_evaluates_like_the_run_did(workdir):
    recorded = json.loads((workdir / "metrics.json").read_text())["test"]
    text = script("evaluate", f"--workdir={workdir}")
    line = next(line for line in text.splitlines() if line.startswith("hybrid"))
    assert line.split()[1] == f"{recorded['rmse']:.4f}"


def test_evaluates_on_another_split_without_rows_that_it_has_seen(workdir):
    text = script(
        "evaluate",
        f"--workdir={workdir}",
        "--split=random",
        "--test_fraction=0.5",
        "--task=ranking",
        "--relevance_threshold=4",
    )
    count = int(re.match(r"split random: (\d+) test rows that the run has not seen", text)[1])
    assert 60 < count < 226  # half of the 226 that were held out
    assert "rmse" not in text.splitlines()[1]


def test_what_made_the_run_cannot_be_changed(workdir):
    assert "--model: it made the run" in script(
        "evaluate", f"--workdir={workdir}", "--model=mf", code=2
    )


def test_exports_the_same_anew(workdir, tmp_path):
    import tensorflow as tf

    script("export", f"--workdir={workdir}", f"--output={tmp_path / 'again'}")
    user, product = tf.range(1, 41, dtype=tf.int64), tf.range(1, 81, 2, dtype=tf.int64)
    answers = []
    for folder in (workdir / "export", tmp_path / "again"):
        score = tf.saved_model.load(str(folder)).signatures["score"]
        times = {"context": tf.zeros([0, 2]), "timestamp": tf.zeros([0], tf.int64)}
        answers.append(score(user=user, product=product, **times)["rating"].numpy())
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("model", ["ease", "mf"])
def test_data_that_have_grown_are_noticed(model, tmp_path):
    """Closed forms too.

    Nothing that was trained on is shown as held out, and no figure of other rows is made.
    """
    world = write_1m(tmp_path / "world")
    settings = {
        "dataset": "1m",
        "data_dir": str(world),
        "model": model,
        "task": "ranking",
        "split": "random",
        "epochs": 1,
    }
    run.train(some_config(**settings, workdir=str(tmp_path / "run")))
    with (world / "ratings.dat").open("a") as file:
        file.write("60::79::3::960000000\n")
    text = ExportedModel(tmp_path / "run").for_user("7", 3)
    assert text.endswith(
        "the data have changed since this run, so that what was held out of it is not known"
    )
    with pytest.raises(TfrecError, match="the data have changed since this run"):
        finished.evaluate(tmp_path / "run", {})


@pytest.mark.parametrize(
    "changes", [{"split": "files", "test_file": "there.is.none"}, {"split": "files"}]
)
def test_a_run_of_one_file_is_not_tested_on_another(workdir, changes):
    with pytest.raises(UsageError, match="Train with --split=files to test a"):
        finished.evaluate(workdir, changes)
