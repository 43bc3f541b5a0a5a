"""Settings of closed forms that are left open are picked on the validation rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import some_config
from tests.worlds import write_1m
from tfrec.experiments import picks, run
from tfrec.experiments.run import Run
from tfrec.models.ease import Ease
from tfrec.models.neighbours import RECENCIES
from tfrec.settings import fields

L2 = fields(Ease)["ease_l2"].metadata["picks"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def config(world, workdir, **changes):
    small = {"model": "ease", "task": "ranking", "refit": "validation", "recency": 0.0}
    small |= {"dataset": "1m", "data_dir": world, "workdir": str(workdir)}
    return some_config(**(small | changes))


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=9, unique=True),
    st.integers(-60, 60),
    st.integers(-60, 60),
)
def test_the_search_finds_the_least_of_a_valley(values, lowest, other):
    """Whatever value it starts from; each cost is asked for once."""
    asked = []

    def cost(picked):
        asked.append(tuple(picked.values()))
        return abs(picked["a"] - lowest) + 2 * abs(picked["b"] - other)

    first = values[0]
    choices = {name: (first, *sorted(values[1:])) for name in "ab"}
    found = picks.search(choices, cost)
    for name, wanted in (("a", lowest), ("b", other)):
        assert abs(found[name] - wanted) == min(abs(value - wanted) for value in values)
    assert len(asked) == len(set(asked))


def test_what_is_no_number_is_never_picked():
    figures = {2: 1.0, 1: np.nan, 3: np.nan}
    assert picks.search({"a": (2, 1, 3)}, lambda picked: figures[picked["a"]]) == {"a": 2}


def test_a_run_keeps_what_is_best_on_its_validation_rows(world, tmp_path, capsys):
    made = run.train(config(world, tmp_path / "open"))
    picked = made.record["picked"]["ease_l2"]
    assert f"picked on the validation rows: --ease_l2={picked}" in capsys.readouterr().out
    figures = {}
    for l2 in L2:
        trial = Run.begin(config(world, tmp_path / "trial", ease_l2=l2, refit="none"))
        trial.model.fit_closed_form(trial.split.train)
        figures[l2] = trial.validator().ranking_metrics()["ndcg@10"]
    places = sorted(L2)
    at = places.index(picked)
    near = [L2[0], *places[max(at - 1, 0) : at + 2]]
    assert figures[picked] == max(figures[each] for each in near)
    assert made.record["validation"]["ndcg@10"] == pytest.approx(figures[picked])
    same = run.train(config(world, tmp_path / "given", ease_l2=picked))
    assert "picked" not in same.record
    assert same.record["test"] == made.record["test"]
    again = Run.open(tmp_path / "open")
    np.testing.assert_array_equal(again.model.between, same.model.between)


def test_without_validation_rows_the_first_pick_is_taken(world, tmp_path):
    made = run.train(config(world, tmp_path / "none", validation_fraction=0.0))
    given_l2 = {"validation_fraction": 0.0, "ease_l2": L2[0]}
    same = run.train(config(world, tmp_path / "given", **given_l2))
    assert "picked" not in made.record
    assert same.record["test"] == made.record["test"]


def test_recency_is_picked_where_rows_have_timestamps(world, tmp_path):
    made = run.train(config(world, tmp_path / "timed", recency=None, ease_l2=3.0))
    assert made.record["picked"].keys() == {"recency"}
    assert made.record["picked"]["recency"] in RECENCIES
    rows = made.split.train.columns()
    lines = [f"{u},{p},5" for u, p in zip(rows["user"], rows["product"], strict=True)]
    file = tmp_path / "rows.csv"
    file.write_text("\n".join(["user,product,rating", *lines]))
    files = {"dataset": "files", "interactions": str(file), "data_dir": "", "split": "random"}
    open_ones = {"recency": None, "ease_l2": None}
    made = run.train(config(world, tmp_path / "untimed", **files, **open_ones))
    assert made.record["picked"].keys() == {"ease_l2"}
