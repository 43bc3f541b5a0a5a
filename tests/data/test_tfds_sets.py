"""Data sets of TFDS.

MovieLens' features as TFDS mocks them, and a small builder of our own on disk.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.data import own
from tests.data.test_prepare import check_same
from tfrec.data import sources
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import loading
from tfrec.experiments.config import make_config

ROWS = [  # user, product, rating, timestamp, title, genres (labels), age
    ("u2", 7, 4.0, 100, "Seven", [0, 1], 30.0),
    ("u1", 7, 3.0, 200, "Seven", [0, 1], 20.0),
    ("u1", 5, 1.0, 50, "Five", [], 20.0),
    ("u2", 7, 2.0, 300, "Seven", [0, 1], 30.0),
]
NAMES = ("user_id", "movie_id", "user_rating", "timestamp", "movie_title", "movie_genres", "age")


class Small(tfds.core.GeneratorBasedBuilder):
    """The rows, in two splits."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        genres = tfds.features.Sequence(tfds.features.ClassLabel(names=["Drama", "War"]))
        kinds = (tf.string, tf.int64, tf.float32, tf.int64, tf.string, genres, tf.float32)
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(dict(zip(NAMES, kinds)))
        )

    def _split_generators(self, manager):
        return {
            "train": self._generate_examples(ROWS[:3]),
            "test": self._generate_examples(ROWS[3:]),
        }

    def _generate_examples(self, rows):
        yield from ((at, dict(zip(NAMES, row))) for at, row in enumerate(rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    Small(data_dir=folder).download_and_prepare()
    return str(folder)


def read(folder: str, name: str = "small", **settings) -> sources.Tables:
    return sources.read(make_config(dataset=f"tfds:{name}", data_dir=folder, **settings).data)


def test_interactions_titles_and_genres(folder):
    tables = read(folder)
    found = {
        (row.user, row.product, row.rating, row.timestamp)
        for row in tables.rows.frame().itertuples()
    }
    assert found == {("u1", 7, 3, 200), ("u1", 5, 1, 50), ("u2", 7, 2, 300)}
    assert list(tables.products.index) == [5, 7] and tables.users is None
    assert tables.products["title"][5] == "Five" and tables.products["movie_genres"].tolist() == [
        ["(missing)"],
        ["Drama", "War"],
    ]
    assert tables.notes == [
        "tfds:small: 1 rows repeat a user and product; kept the latest row of each"
    ]


def test_features_by_flag(folder):
    config = make_config(
        dataset="tfds:small",
        data_dir=folder,
        users_numeric=("age",),
        products_categorical=("movie_title",),
        duplicates="mean",
        workdir="unused",
        split="random",
        test_fraction=0.5,
    )
    dataset = loading.read(config)
    assert sorted(own.rows(dataset)) == [("u1", 5, 1), ("u1", 7, 3), ("u2", 7, 3)]
    np.testing.assert_array_equal(dataset.catalog.user_features.dense(), [[-1, 0], [1, 0]])
    assert dataset.catalog.user_features.names == ("age", "age=(missing)")
    assert (
        dataset.catalog.features.names[0] == "movie_title=Five"
        and len(dataset.catalog.features.names) == 2
    )


def test_movielens_as_tfds_has_it():
    with tfds.testing.mock_data(num_examples=30):
        config = make_config(
            dataset="tfds:movielens/100k-ratings",
            users_categorical=("user_gender", "user_occupation_label"),
            on_bad_rows="skip",
        )
        tables = sources.read(config.data)
    assert len(tables.rows.frame()) and set(tables.rows.frame()) == {
        "user",
        "product",
        "rating",
        "timestamp",
    }
    assert all(isinstance(user, str) for user in tables.rows.frame()["user"])
    assert all(
        isinstance(genre, str) for genres in tables.products["movie_genres"] for genre in genres
    )
    assert set(tables.users["user_gender"]) <= {"True", "False"}


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("smal", {}, TfrecError, r"tfds:smal: cannot be read \(.*\)\. Is it prepared\?"),
        (
            "movielens/100k-ratings",
            {},
            TfrecError,
            r"tfds:movielens/100k-ratings: cannot be read \(.*\)\. Is it prepared\?",
        ),
        ("small", {"user_column": "user"}, None, ""),
        (
            "small",
            {"user_column": "usr"},
            UsageError,
            r"tfds:small: no column usr among .* \(--user_column\)\.",
        ),
        (
            "small",
            {"rating_column": "stars"},
            UsageError,
            r"tfds:small: no column stars among .* \(--rating_column\)\.",
        ),
        (
            "small",
            {"users_numeric": ("ages",)},
            UsageError,
            r"tfds:small: no column ages among .* Did you mean age\?",
        ),
        (
            "small",
            {"users_numeric": ("movie_title",)},
            UsageError,
            r"tfds:small, column movie_title: .* is not a number\.",
        ),
    ],
)
def test_what_is_not_there_ends_in_one_line(folder, name, settings, error, message):
    if error is None:
        assert len(read(folder, name, **settings).rows)
        return
    with pytest.raises(error, match=f"^{message}") as caught:
        read(folder, name, **settings)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


class Nul(Small):
    """Users that differ by a NUL only."""

    def _split_generators(self, manager):
        return {"train": self._generate_examples([ROWS[0], ("u2\0", *ROWS[1][1:])])}


def test_an_id_with_a_nul_is_told_or_skipped(tmp_path):
    Nul(data_dir=tmp_path).download_and_prepare()
    with pytest.raises(
        TfrecError,
        match=r"^tfds:nul, row 2, column user_id: u2\\x00 holds a NUL, which no id may\.",
    ):
        read(str(tmp_path), "nul")
    tables = read(str(tmp_path), "nul", on_bad_rows="skip")
    assert (
        tables.rows.frame()["user"].tolist() == ["u2"]
        and "skipped 1 row; the first: row 2" in tables.notes[0]
    )


def test_a_prepared_folder_has_the_same_rows(folder, tmp_path):
    settings = {
        "split": "random",
        "test_fraction": 0.4,
        "validation_fraction": 0.5,
        "users_numeric": ("age",),
        "workdir": "unused",
    }
    check_same(tmp_path / "out", dataset="tfds:small", data_dir=folder, **settings)
