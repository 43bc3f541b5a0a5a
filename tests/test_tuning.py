import os
import re
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import some_config
from tests.worlds import write_1m
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import run, tuning
from tfrec.experiments.flags import read_flagfile
from tfrec.system import sealed, stopping
from tfrec.system.locked import locked

# with settings to pick a trial would be many fits
ONE_FIT = {"model": "ials", "unobserved_weight": 0.3, "recency": 0.0}
MF = [tuning.parse("l2=log:0.001..1")]
LOSSES = [tuning.parse("loss=sigmoid,mse")]
RANGES = [tuning.parse("ials_l2=log:1..1000"), tuning.parse("embedding_dim=8,16")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding_dim=16,32", {"choices": (16, 32)}),
        ("biases=true,false", {"choices": (True, False)}),
        ("terms=bias+dot,bias", {"choices": (("bias", "dot"), ("bias",))}),
        ("model=mf,ncf", {"choices": ("mf", "ncf")}),
        ("l2=0.1", {"choices": (0.1,)}),
        ("l2=0..2", {"low": 0.0, "high": 2.0}),
        ("epochs=5..30", {"low": 5, "high": 30}),
        ("learning_rate=log:1e-4..1e-2", {"low": 1e-4, "high": 1e-2, "log": True}),
    ],
)
def test_the_notation(text, expected):
    assert tuning.parse(text) == tuning.Range(text, text.split("=")[0], **expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "lerning_rate=log:1e-4..1e-2",
            r"there is no setting lerning_rate\. Did you mean learning_rate\?",
        ),
        ("split=random,temporal", r"only settings of the model and of training"),
        ("seed=0,1", r"only settings of the model and of training"),
        ("l2", r"nothing is not a number; expected NAME=LOW\.\.HIGH, .*"),
        ("optimizer=", r"expected NAME=LOW\.\.HIGH, .*"),
        ("l2=lgo:0.1..1", r"lgo:0\.1 is not a number; .*"),
        ("epochs=1..2.5", r"2\.5 is not a whole number; .*"),
        ("biases=yes", r"yes is not true or false; .*"),
        ("l2=2..1", r"2\.0 is not below 1\.0\."),
        ("l2=log:0..1", r"a logarithmic range begins above 0\."),
        ("epochs=0..5", r"--epochs=0: expected at least 1\."),
        ("optimizer=adam,sdg", r"there is no optimizer sdg\. Did you mean sgd\?"),
        ("optimizer=adam..sgd", r"optimizer is not a number\. Give choices: optimizer=A,B\."),
        ("model=mf,nfc", r"there is no model nfc\. Did you mean ncf\?"),
    ],
)
def test_a_wrong_range_is_told_in_a_line_that_mends_it(text, message):
    with pytest.raises(UsageError, match=rf"^--range={re.escape(text)}: .*{message}"):
        tuning.parse(text)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 10**6),
    st.sampled_from(["l2=0.123..0.1234", "l2=log:0.01..2", "epochs=3..5", "epochs=log:1..50"]),
)
def test_a_draw_lies_in_its_range_and_is_a_function_of_seed_and_trial(seed, trial, text):
    of = tuning.parse(text)
    value = of.draw(seed, trial)
    assert of.low <= value <= of.high and type(value) is type(of.low)
    assert value == tuning.parse(text).draw(seed, trial)


def test_draws_are_even_whole_numbers_with_both_ends_and_logarithmic_by_ratio():
    draws = {
        text: [tuning.parse(text).draw(0, trial) for trial in range(2000)]
        for text in ("epochs=1..4", "l2=log:0.01..1", "biases=true,false")
    }
    assert np.bincount(draws["epochs=1..4"])[1:] == pytest.approx(500, abs=80)
    assert np.mean(np.array(draws["l2=log:0.01..1"]) < 0.1) == pytest.approx(0.5, abs=0.04)
    assert np.mean(draws["biases=true,false"]) == pytest.approx(0.5, abs=0.04)
    assert len({tuning.parse("l2=0..1").draw(seed, 0) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("how", "trials", "epochs", "expected"),
    [
        ("random", 20, 30, [30]),
        ("halving", 9, 30, [3, 10, 30]),
        ("halving", 8, 30, [10, 30]),
        ("halving", 100, 5, [1, 5]),
        ("halving", 2, 30, [30]),
    ],
)
def test_rungs(how, trials, epochs, expected):
    assert tuning.rungs(how, trials, epochs) == expected


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def search(world, workdir, ranges=RANGES, trials=3, how="random", **settings):
    config = some_config(
        **{
            "dataset": "1m",
            "data_dir": world,
            "task": "ranking",
            "workdir": str(workdir),
        }
        | (settings if "model" in settings else ONE_FIT | settings)
    )
    return tuning.search(config, ranges, trials, how, "python scripts/tune.py ...")


def results(workdir):
    """Each with the checksum of what it holds verified, and left out: seconds differ."""
    return [sealed.read_json(file, "") for file in sorted(workdir.glob("trials/*.json"))]


def test_the_best_by_validation_is_first_and_its_flags_run_again(world, tmp_path):
    table = search(world, tmp_path).strip().splitlines()
    trials = sorted(results(tmp_path), key=lambda trial: -trial["value"])
    assert table[0].split() == [
        "trial",
        "validation",
        "ndcg@10",
        "best",
        "epoch",
        "seconds",
        "ials_l2",
        "embedding_dim",
    ]
    for line, trial in zip(table[1:], trials):
        assert line.split()[:2] == [str(trial["number"]), f"{trial['value']:.4f}"]
        assert line.split()[-2:] == [
            str(trial["settings"][name]) for name in ("ials_l2", "embedding_dim")
        ]
    best = read_flagfile(tmp_path / "best.flags")
    assert best.ials_l2 == trials[0]["settings"]["ials_l2"]
    again = run.validate(best.replace(workdir=str(tmp_path / "again")))
    assert again["validation"]["ndcg@10"] == trials[0]["value"]
    head = (tmp_path / "best.flags").read_text().splitlines()[:3]
    assert re.fullmatch(
        r"# The best of 3 trials by validation ndcg@10, 0\.\d{4}: trial \d, kept at epoch 1\.",
        head[0],
    )
    assert head[2] == f"# python scripts/train.py --flagfile={tmp_path / 'best.flags'}"


def test_the_test_rows_have_no_say_and_are_not_looked_at(tmp_path):
    """Two worlds that differ in the ratings of the test rows alone."""
    random = np.random.RandomState(0)
    pairs = np.stack(np.divmod(random.permutation(400)[:300], 20), axis=1)
    tables, none = [], []
    for name in ("a", "b"):
        files = {}
        for part, rows in (
            ("train", pairs[:220]),
            ("validation", pairs[220:260]),
            ("test", pairs[260:]),
        ):
            stars = (rows.sum(axis=1) * 7 + (part == "test") * (name == "b") * rows[:, 0]) % 5 + 1
            files[f"{part}_file"] = str(tmp_path / f"{name}-{part}.csv")
            lines = [f"{user},{product},{star}" for (user, product), star in zip(rows, stars)]
            (tmp_path / f"{name}-{part}.csv").write_text("\n".join(["user,product,rating", *lines]))
        ranges = [tuning.parse("neighbours=2,9")]
        common = {
            "dataset": "files",
            "split": "files",
            "model": "item_knn",
            "task": "rating",
        }
        search("", tmp_path / name, ranges, trials=2, **common, **files)
        tables.append([(trial["settings"], trial["value"]) for trial in results(tmp_path / name)])
        none += list((tmp_path / name).rglob("metrics.json")) + list(
            (tmp_path / name).rglob("users.npz")
        )
    assert tables[0] == tables[1]
    assert none == []


def test_interrupted_goes_on_with_what_is_not_finished_and_more_trials_add(
    world, tmp_path, monkeypatch
):
    search(world, tmp_path / "whole")
    validate, begun = run.validate, []

    def power_cut(config):
        begun.append(config)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return validate(config)

    with monkeypatch.context() as patch:
        patch.setattr(run, "validate", power_cut)
        with pytest.raises(KeyboardInterrupt):
            search(world, tmp_path / "cut", trials=2)
    first = (tmp_path / "cut" / "trials" / "000.json").read_text()
    assert not (tmp_path / "cut" / "best.flags").exists()
    search(world, tmp_path / "cut", trials=3)
    assert (tmp_path / "cut" / "trials" / "000.json").read_text() == first
    for one, other in zip(results(tmp_path / "whole"), results(tmp_path / "cut"), strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}


def test_a_trial_that_failed_is_tried_again_when_the_search_is(world, tmp_path):
    search(world, tmp_path, trials=1)
    with locked(tmp_path / "trials" / "001", "--workdir"):  # a reason that passes
        assert "trial 1 failed: " in search(world, tmp_path, trials=2)
    assert "trial 1 failed" not in search(world, tmp_path, trials=2)
    assert len(results(tmp_path)) == 2


def test_told_to_stop_is_no_failed_trial(world, tmp_path, monkeypatch):
    validate = run.validate

    def told(config):
        with stopping.immediate():
            os.kill(os.getpid(), signal.SIGTERM)
            return validate(config)

    monkeypatch.setattr(run, "validate", told)
    with pytest.raises(stopping.Terminated):
        search(world, tmp_path / "search")
    assert not list((tmp_path / "search" / "trials").glob("*.json"))


def test_another_search_in_the_folder_is_refused(world, tmp_path):
    search(world, tmp_path, trials=1)
    with pytest.raises(UsageError, match=r"holds a run with another range\. "):
        search(world, tmp_path, [tuning.parse("ials_l2=1..2")])


def test_halving_gives_the_best_third_three_times_the_epochs(world, tmp_path):
    table = search(world, tmp_path, MF, trials=4, how="halving", model="mf", epochs=6)
    names = sorted(file.stem for file in tmp_path.glob("trials/*.json"))
    short, long = (
        [trial for trial in results(tmp_path) if trial["epochs"] == epochs] for epochs in (2, 6)
    )
    assert len(names) == 5 and len(short) == 4 and len(long) == 1
    assert long[0]["number"] == max(short, key=lambda trial: trial["value"])["number"]
    assert f"{long[0]['number']:03}-epochs-6" in names
    assert table.strip().splitlines()[0].split()[:2] == ["trial", "epochs"]
    with pytest.raises(UsageError, match="chooses the epochs itself"):
        search(world, tmp_path, [tuning.parse("epochs=1..3")], how="halving", model="mf")


def test_a_trial_that_fails_is_told_and_does_not_end_the_search(world, tmp_path):
    table = search(world, tmp_path, LOSSES, trials=6, model="mf", epochs=1).strip().splitlines()
    failed = sorted(set(range(6)) - {trial["number"] for trial in results(tmp_path)})
    assert 0 < len(failed) < 6
    assert [line.split()[1] for line in table[7 - len(failed) : 7]] == ["failed"] * len(failed)
    assert table[7:-1] == [
        f"trial {number} failed: --loss=mse: it is a loss of --task=rating, and this run is of "
        "--task=ranking. Change one of them, or leave the loss at auto."
        for number in failed
    ]
    with pytest.raises(TfrecError, match=r"every trial failed; trial 0: --loss=mse: it is a loss"):
        search(world, tmp_path / "all", [tuning.parse("loss=mse")], trials=2, model="mf")


@pytest.mark.parametrize(
    ("settings", "ranges", "message"),
    [
        (
            {"validation_fraction": 0.0},
            RANGES,
            "--validation_fraction=0: trials are judged on validation rows",
        ),
        ({}, MF, "--range=l2: no part of this run has it. It goes with models that are trained"),
        ({}, RANGES + RANGES, "--range=ials_l2: stands there twice"),
    ],
)
def test_what_cannot_be_searched_leaves_no_folder(world, tmp_path, settings, ranges, message):
    with pytest.raises(UsageError, match=message):
        search(world, tmp_path / "search", ranges, **settings)
    assert not (tmp_path / "search").exists()


def test_a_trial_leaves_out_what_its_model_lacks(world, tmp_path):
    ranges = [tuning.parse("model=ease,item_knn"), tuning.parse("neighbours=5..9")]
    ease = {"model": "ease", "ease_l2": 10.0, "recency": 0.0}
    table = search(world, tmp_path, ranges, trials=6, **ease).strip().splitlines()[1:7]
    drawn = {tuple(line.split()[-2:]) for line in table}
    assert {model for model, _ in drawn} == {"ease", "item_knn"}
    assert all((neighbours == "-") == (model == "ease") for model, neighbours in drawn)
