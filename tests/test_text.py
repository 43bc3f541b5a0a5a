import numpy as np
import pytest

from tests.conftest import make_dataset, make_split, replace
from tests.test_tensorboard import model_of
from tfrec.experiments import tensorboard
from tfrec.system import text


@pytest.mark.parametrize(
    "letter",
    ["\x1b", "\x07", "\r", "\n", "\x9b", "\u202e", "\u2066", "\u200b", "\u2028", "\udcff", "\0"],
)
def test_what_would_steer_the_terminal_is_escaped(letter):
    for found in (
        text.shown(f"a{letter}b"),
        text.aligned([["head"], [f"a{letter}b"]]),
        text.markdown(f"a{letter}b"),
    ):
        assert letter not in found.removeprefix("head\n") and found.endswith("b")


def test_what_people_write_is_shown_as_it_is():
    for said in ("Amélie (2001)", "千と千尋", "Ребёнок 👍", ""):
        assert text.shown(said) == said


def test_a_long_message_keeps_its_beginning_and_its_end():
    found = text.cut(f"begin {'x' * 10_000} end")
    assert len(found) == 600 and found.startswith("begin x") and found.endswith("x end")
    assert text.cut("short") == "short"


def test_markdown_shows_titles_and_obeys_none():
    titles = [
        "![x](http://evil/x.png)",
        "a|b",
        "<img src=x>",
        "`c`",
        "[l](http://evil)",
        "http://evil",
        "\n# head",
        "**b**",
        "$",
    ]
    dataset = make_dataset()
    products = dataset.catalog.products.assign(title=titles)
    split = make_split(replace(dataset, products=products), train=np.arange(5))

    found = tensorboard.recommendations(model_of(split.train), split, k=9)
    assert len(found.splitlines()) == 5
    for line in found.splitlines()[2:]:
        assert line.count("|") == 4 and not set("<`[*") & set(line) and "http:" not in line
