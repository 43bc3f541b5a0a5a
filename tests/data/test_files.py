"""One's own files, from the file to the Dataset."""

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

from tests.data import own
from tfrec.data import features, sources
from tfrec.data.dataset import Dataset
from tfrec.errors import TfrecError, UsageError
from tfrec.experiments import loading
from tfrec.experiments.config import make_config
from tfrec.experiments.flags import read_flagfile


def test_a_csv_alone(tmp_path, capsys):
    dataset = own.load(own.write(tmp_path))
    assert own.rows(dataset) == own.expected()
    assert dataset.interactions.timestamp.tolist() == own.frame()["timestamp"].tolist()
    assert (list(dataset.catalog.user_ids), list(dataset.catalog.product_ids)) == (
        ["u1", "u2", "u3"],
        ["p1", "p2", "p3"],
    )
    assert dataset.catalog.features.shape == (3, 0) and dataset.catalog.user_features.shape == (
        3,
        0,
    )
    assert list(dataset.catalog.products["title"]) == ["p1", "p2", "p3"]
    assert dataset.catalog.rated and dataset.catalog.context_names == ("daytime", "weekend")
    assert capsys.readouterr().out == ""


FORMS = {
    "semicolons": (own.RATINGS.replace(",", ";").encode(), "ratings.csv", {"separator": ";"}),
    "tabs": (own.RATINGS.replace(",", "\t").encode(), "ratings.tsv", {}),
    "tabs by flag": (own.RATINGS.replace(",", "\t").encode(), "ratings.txt", {"separator": "tab"}),
    "two characters": (own.RATINGS.replace(",", "::").encode(), "ratings.dat", {"separator": "::"}),
    "no header": (
        own.RATINGS.split("\n", 1)[1].encode(),
        "ratings.csv",
        {"columns": ("user", "product", "rating", "timestamp")},
    ),
    "gzip": (gzip.compress(own.RATINGS.encode()), "ratings.csv.gz", {}),
    "gzip, tabs": (gzip.compress(own.RATINGS.replace(",", "\t").encode()), "ratings.tsv.gz", {}),
    "gzip named csv": (gzip.compress(own.RATINGS.encode()), "ratings.csv", {}),
    "byte order mark": (b"\xef\xbb\xbf" + own.RATINGS.encode(), "ratings.csv", {}),
    "Windows' line ends": (own.RATINGS.replace("\n", "\r\n").encode(), "ratings.csv", {}),
    "no line end": (own.RATINGS.rstrip().encode(), "ratings.csv", {}),
    "blank lines": (own.RATINGS.replace("u2,p1", "\nu2,p1").encode() + b"\n\n", "ratings.csv", {}),
    "quotation marks": (
        own.RATINGS.replace("u1", '"u1"').replace("product", '"product"').encode(),
        "ratings.csv",
        {},
    ),
    "quoted, semicolons": (
        own.RATINGS.replace(",", ";").replace("u1", '"u1"').encode(),
        "ratings.csv",
        {"separator": ";"},
    ),
    "spaces around": (own.RATINGS.replace("u1,p1,4", " u1 , p1 , 4 ").encode(), "ratings.csv", {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_way_of_writing_it_gives_the_same(tmp_path, form):
    content, name, changes = FORMS[form]
    (tmp_path / name).write_bytes(content)
    dataset = own.load(tmp_path, interactions=str(tmp_path / name), **changes)
    assert own.rows(dataset) == own.expected()
    assert dataset.interactions.timestamp.tolist() == own.frame()["timestamp"].tolist()


PARQUET = {
    "plain": lambda table: table,
    "times": lambda table: table.assign(timestamp=pd.to_datetime(table["timestamp"], unit="s")),
    "times with a zone": lambda t: t.assign(
        timestamp=pd.to_datetime(t["timestamp"], unit="s", utc=True).dt.tz_convert("Asia/Tokyo")
    ),
    "numbers as text": lambda table: table.assign(
        rating=table["rating"].astype(str), timestamp=table["timestamp"].astype(str)
    ),
    "floats": lambda table: table.assign(
        timestamp=table["timestamp"].astype(float), rating=table["rating"].astype("float32")
    ),
    "categories": lambda table: table.astype({"user": "category", "product": "category"}),
    "more columns, an index": lambda table: table.assign(more=[[1]] * 5).set_index(
        pd.Index(range(5), name="i")
    ),
}


@pytest.mark.parametrize("form", PARQUET)
def test_parquet_gives_the_same(tmp_path, form):
    PARQUET[form](own.frame()).to_parquet(tmp_path / "r.parquet")
    dataset = own.load(tmp_path, interactions=str(tmp_path / "r.parquet"))
    assert own.rows(dataset) == own.expected()
    assert dataset.interactions.timestamp.tolist() == own.frame()["timestamp"].tolist()


def test_columns_have_any_name_and_order_among_others(tmp_path):
    content = "x,when,stars,item,who,rating\n,1500000000,4,p1,u1,bad\n,1500000001,2,p2,u1,bad\n"
    names = {
        "user_column": "who",
        "product_column": "item",
        "rating_column": "stars",
        "timestamp_column": "when",
    }
    assert own.rows(own.load(own.write(tmp_path, ratings=content), **names)) == [
        ("u1", "p1", 4),
        ("u1", "p2", 2),
    ]
    headerless = {"columns": ("-", "timestamp", "rating", "product", "user", "-")}
    own.write(tmp_path, ratings=content.split("\n", 1)[1])
    assert own.rows(own.load(tmp_path, **headerless)) == [("u1", "p1", 4), ("u1", "p2", 2)]


def test_without_ratings_every_rating_is_one_and_only_ranking_is_left(tmp_path, capsys):
    own.write(tmp_path, ratings="user,product\nu1,p1\nu2,p2\nu2,p1\n")
    dataset = own.load(tmp_path, task="ranking")
    assert not dataset.catalog.rated and dataset.interactions.rating.tolist() == [1, 1, 1]
    assert dataset.interactions.timestamp is None and dataset.interactions.context.shape == (3, 0)
    assert capsys.readouterr().out.splitlines() == [
        "ratings.csv: no column rating, so every rating is 1 (--rating_column names one)",
        "ratings.csv: no column timestamp, so there is no context (--timestamp_column names one)",
    ]
    with pytest.raises(UsageError, match=r"^--task=rating: the data have no ratings\."):
        loading.load(own.config(tmp_path))


# Ids


@pytest.mark.parametrize(
    ("ids", "kept"),
    [
        (["3", "-1", "20"], [3, -1, 20]),
        (["3", "007", "20"], ["3", "007", "20"]),
        (["3", "--3", "-4"], ["3", "--3", "-4"]),
        (["3", "+1", "20"], ["3", "+1", "20"]),
        (["1", "2.0", "3"], [1, 2, 3]),
        (["1.0", "007", "3"], ["1.0", "007", "3"]),
        (["1.0", "-2.00", "0.0"], [1, -2, 0]),
        (["1", "9" * 25, "3"], ["1", "9" * 25, "3"]),
        (["a", "NA", "null"], ["a", "NA", "null"]),
        (["1", "1e3", "nan"], ["1", "1e3", "nan"]),
        (["True", "False", "x"], ["True", "False", "x"]),
        (["Zoë", "日本", "a b"], ["Zoë", "日本", "a b"]),
        (['say "hi"', "a,b", "c;d"], ['say "hi"', "a,b", "c;d"]),
    ],
)
def test_ids_are_whole_numbers_only_where_nothing_is_lost(tmp_path, ids, kept):
    pd.DataFrame({"user": ids, "product": ids[::-1], "rating": 1}).to_csv(
        tmp_path / "ratings.csv", index=False
    )
    dataset = own.load(tmp_path)
    assert [(user, product) for user, product, _ in own.rows(dataset)] == list(
        zip(kept, kept[::-1])
    )
    assert dataset.catalog.user_ids.dtype == (np.int64 if isinstance(kept[0], int) else object)


def test_ids_meet_across_files_of_different_types(tmp_path):
    """Numbers in one file and text in the other: text in both."""
    own.write(
        tmp_path,
        ratings="user,product,rating\n1,10,3\n2,20,4\n",
        products="product,title\n10,Ten\n20,Twenty\nx9,Nine\n",
    )
    dataset = own.load(tmp_path, products=str(tmp_path / "products.csv"))
    assert list(dataset.catalog.product_ids) == ["10", "20", "x9"] and list(
        dataset.catalog.user_ids
    ) == [1, 2]
    assert list(dataset.catalog.products["title"]) == ["Ten", "Twenty", "Nine"]
    pd.DataFrame({"user": ["1", "2"], "product": [10, 20], "rating": [3, 4]}).to_parquet(
        tmp_path / "r.parquet"
    )
    dataset = own.load(tmp_path, interactions=str(tmp_path / "r.parquet"))
    assert list(dataset.catalog.user_ids) == ["1", "2"] and list(dataset.catalog.product_ids) == [
        10,
        20,
    ]


texts = st.text(
    st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp"), max_codepoint=0x2FFF),
    min_size=1,
    max_size=4,
)
some_rows = st.lists(
    st.tuples(texts, texts, st.floats(-9, 9, width=32)),
    min_size=1,
    max_size=9,
    unique_by=lambda row: row[:2],
)


@settings(max_examples=60, deadline=None)
@given(some_rows, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_what_pandas_writes_is_read(tmp_path_factory, rows, separator, encoding):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    table = pd.DataFrame(rows, columns=["user", "product", "rating"])
    table.to_csv(path, index=False, sep=separator, encoding=encoding)
    wanted = make_config(
        dataset="files", interactions=str(path), separator="tab" if separator == "\t" else separator
    )
    found = sources.read(wanted.data).rows.frame()
    assert (
        list(zip(found["user"].astype(str), found["product"].astype(str), found["rating"])) == rows
    )


# Attributes


def test_attributes_are_encoded_as_scikit_learn_does(tmp_path):
    dataset = own.load(own.write(tmp_path), tables=True)
    assert (
        list(dataset.catalog.product_ids) == ["p1", "p2", "p3", "p4"]
        and dataset.catalog.num_users == 3
    )
    assert list(dataset.catalog.products["title"]) == ["First", "Second", "Third", "Fourth"]
    brand, tags = MultiLabelBinarizer(), MultiLabelBinarizer()
    price = StandardScaler().fit_transform([[10], [np.nan], [30], [20]])
    parts = [
        brand.fit_transform([["acme"], ["(missing)"], ["bolt"], ["acme"]]),
        tags.fit_transform([["red", "blue"], ["blue"], ["(missing)"], ["green"]]),
        np.nan_to_num(price),
        np.isnan(price),
    ]
    np.testing.assert_allclose(
        dataset.catalog.features.dense(), np.concatenate(parts, axis=1), rtol=1e-6
    )
    names = [f"brand={name}" for name in brand.classes_] + [
        f"tags={name}" for name in tags.classes_
    ]
    assert dataset.catalog.features.names == (*names, "price", "price=(missing)")
    assert dataset.catalog.user_features.names == (
        "gender=(missing)",
        "gender=f",
        "gender=m",
        "age",
        "age=(missing)",
    )
    np.testing.assert_array_equal(
        dataset.catalog.user_features.dense(), [[0, 1, 0, -1, 0], [0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]
    )


def test_whoever_is_not_in_the_table_has_every_value_missing(tmp_path, capsys):
    products, users = (
        own.PRODUCTS.replace("p1,First,acme,red|blue,10\n", ""),
        own.USERS.replace("u3,50,\n", ""),
    )
    dataset = own.load(own.write(tmp_path, products=products, users=users), tables=True)
    assert own.rows(dataset) == own.expected()
    assert list(dataset.catalog.product_ids) == ["p2", "p3", "p4", "p1"]
    assert list(dataset.catalog.products["title"]) == ["Second", "Third", "Fourth", "p1"]
    on = {
        name
        for name, value in zip(dataset.catalog.features.names, dataset.catalog.features.dense()[3])
        if value
    }
    assert on == {"brand=(missing)", "tags=(missing)", "price=(missing)"}
    assert {
        name
        for name, value in zip(
            dataset.catalog.user_features.names, dataset.catalog.user_features.dense()[2]
        )
        if value
    } == {
        "gender=(missing)",
        "age=(missing)",
    }
    assert capsys.readouterr().out.splitlines() == [
        "products table: no row for 1 of 4 products, such as p1; their features are missing",
        "users table: no row for 1 of 3 users, such as u3; their features are missing",
    ]


def test_a_table_of_titles_only_and_one_without_titles(tmp_path, capsys):
    own.write(tmp_path)
    products = {"products": str(tmp_path / "products.csv")}
    dataset = own.load(tmp_path, **products)
    assert dataset.catalog.features.shape == (4, 0) and list(dataset.catalog.products["title"]) == [
        "First",
        "Second",
        "Third",
        "Fourth",
    ]
    assert (
        "products.csv: unused columns brand, tags, price (--products_categorical"
        in capsys.readouterr().out
    )
    own.write(tmp_path, products="sku,name\np1,\np2,B\n")
    dataset = own.load(tmp_path, products_id="sku", products_title="name", **products)
    assert dict(zip(dataset.catalog.product_ids, dataset.catalog.products["title"])) == {
        "p1": "p1",
        "p2": "B",
        "p3": "p3",
    }
    dataset = own.load(tmp_path, products_id="sku", products_categorical=("name",), **products)
    assert list(dataset.catalog.products["title"]) == ["p1", "p2", "p3"]
    assert dataset.catalog.features.names == ("name=(missing)", "name=B")


def test_lists_in_parquet_and_any_separator_between_values(tmp_path):
    table = pd.DataFrame(
        {
            "product": ["p1", "p2", "p3"],
            "tags": [["a|b", "c"], [], None],
            "price": [1.0, None, 3.0],
            "brand": [1, 2, None],
        }
    )
    table.to_parquet(tmp_path / "products.parquet")
    features = {"products_multivalued": ("tags",), "products_numeric": ("price",)}
    dataset = own.load(own.write(tmp_path), products=str(tmp_path / "products.parquet"), **features)
    assert dataset.catalog.features.names == (
        "tags=(missing)",
        "tags=a|b",
        "tags=c",
        "price",
        "price=(missing)",
    )
    np.testing.assert_array_equal(
        dataset.catalog.features.dense(), [[0, 1, 1, -1, 0], [1, 0, 0, 0, 1], [1, 0, 0, 1, 0]]
    )
    own.write(tmp_path, products='product,tags\np1,"a; b;a;"\np2,b\np3,;\n')
    dataset = own.load(
        tmp_path,
        products=str(tmp_path / "products.csv"),
        products_multivalued=("tags",),
        value_separator=";",
    )
    assert dataset.catalog.features.names == ("tags=(missing)", "tags=a", "tags=b")
    np.testing.assert_array_equal(
        dataset.catalog.features.dense(), [[0, 1, 1], [0, 0, 1], [1, 0, 0]]
    )


def test_words_and_bins_of_a_table_make_features(tmp_path):
    products = (
        "sku,name,about,price\np1,Red shirt,a warm shirt,10\np2,Blue shirt,,20\n"
        "p3,Red trousers,warm,30\np4,,short,40\n"
    )
    settings = {
        "products": str(tmp_path / "products.csv"),
        "products_id": "sku",
        "products_title": "name",
        "products_text": ("name", "about"),
        "products_numeric": ("price",),
        "numeric_bins": 2,
    }
    catalog = own.load(own.write(tmp_path, products=products), **settings).catalog
    assert catalog.features.names == (
        "price=10..20",
        "price=20..40",
        "title=red",
        "title=shirt",
        "about=warm",
    )
    dense = catalog.features.dense()
    np.testing.assert_array_equal(dense[:, :2], [[1, 0], [1, 0], [0, 1], [0, 1]])
    np.testing.assert_array_equal(dense[:, 2:] > 0, [[1, 1, 1], [0, 1, 0], [1, 0, 1], [0, 0, 0]])
    np.testing.assert_allclose(dense[0, 2:4], 0.5**0.5, rtol=1e-6)
    assert list(catalog.products) == ["title", "price"]
    table = pd.read_csv(tmp_path / "products.csv")
    assert pd.isna(table["name"][3])  # who has none is called by the id, whose words do not count
    ratings = pd.read_csv(tmp_path / "ratings.csv")
    of_frames = {name: value for name, value in settings.items() if name != "products"}
    frames = Dataset.from_pandas(ratings, table, **of_frames)
    np.testing.assert_array_equal(frames.catalog.features.dense(), dense)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"products_text": ("nope",)}, r"no column nope among .* \(--products_text\)"),
        ({"products_text": ("title",), "products_title": "brand"}, "Take brand"),
        ({"products_text": ("title", "title")}, "title stands there twice"),
        (
            {"products_text": ("title",), "products": ""},
            "title: there is no table of products",
        ),
    ],
)
def test_texts_that_are_not_there_are_told_in_one_line(settings, message, tmp_path):
    own.write(tmp_path)
    with pytest.raises((TfrecError, UsageError), match=message):
        own.load(tmp_path, **({"products": str(tmp_path / "products.csv")} | settings))
    if "products" in settings:
        with pytest.raises(UsageError, match="products_text=title: there is no frame products"):
            Dataset.from_pandas(pd.read_csv(tmp_path / "ratings.csv"), products_text=("title",))


def test_a_column_of_free_text_is_no_feature(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "MOST_VALUES", 100)
    many = "".join(f"p{i},text {i}\n" for i in range(101))
    own.write(tmp_path, products=f"product,brand\n{many}")
    with pytest.raises(
        TfrecError, match=r"^column brand: 101 different values; .* Is it an id, or free text\?$"
    ):
        own.load(tmp_path, products=str(tmp_path / "products.csv"), products_categorical=("brand",))

    own.write(tmp_path)
    for column in ("product", "title", "brand"):
        with pytest.raises(UsageError, match=f"column {column} is "):
            settings = {"products_numeric": (column,), "products_title": "brand"}
            own.load(tmp_path, products=str(tmp_path / "products.csv"), **settings)


# Splits, duplicates


def test_pairs_that_are_in_two_files_are_noted(tmp_path, capsys):
    for name in ("train", "test"):
        (tmp_path / name).write_text(own.RATINGS)
    dataset = own.load(
        tmp_path,
        split="files",
        train_file=str(tmp_path / "train"),
        test_file=str(tmp_path / "test"),
    )
    assert len(dataset) == 10
    assert capsys.readouterr().out.startswith(
        "--split=files: 5 rows have a user and product of an earlier file"
    )


def test_the_files_split(tmp_path):
    lines = own.RATINGS.splitlines()
    files = {
        "train_file": lines[:3],
        "validation_file": [lines[0], lines[3]],
        "test_file": [lines[0], *lines[4:]],
    }
    for name, content in files.items():
        (tmp_path / name).write_text("\n".join(content))
    dataset = own.load(tmp_path, split="files", **{name: str(tmp_path / name) for name in files})
    assert own.rows(dataset) == own.expected()
    assert dataset.columns["part"].tolist() == [0, 0, 1, 2, 2]
    (tmp_path / "test_file").write_text("user,product,timestamp\nu1,p3,5\n")
    with pytest.raises(TfrecError, match="column rating is not in each of the files"):
        own.load(tmp_path, split="files", **{name: str(tmp_path / name) for name in files})
    (tmp_path / "train_file").write_text("user,product,rating\n1,10,5\n")
    (tmp_path / "test_file").write_text("user,product,rating\nu1,10,5\n")
    dataset = own.load(
        tmp_path,
        split="files",
        train_file=str(tmp_path / "train_file"),
        test_file=str(tmp_path / "test_file"),
    )
    assert own.rows(dataset) == [("1", 10, 5), ("u1", 10, 5)]


TWICE = (
    "user,product,rating,timestamp\nu1,p1,1,50\nu2,p1,3,10\nu1,p1,5,40\nu1,p2,2,10\nu1,p1,3,20\n"
)


@pytest.mark.parametrize(
    ("content", "how", "kept"),
    [
        (TWICE, "last", [("u1", "p1", 1), ("u2", "p1", 3), ("u1", "p2", 2)]),
        (TWICE, "mean", [("u1", "p1", 3), ("u2", "p1", 3), ("u1", "p2", 2)]),
        (
            TWICE.replace("timestamp", "other"),
            "last",
            [("u2", "p1", 3), ("u1", "p2", 2), ("u1", "p1", 3)],
        ),
        (
            TWICE.replace(",50", ",20").replace(",40", ",20"),
            "last",
            [("u2", "p1", 3), ("u1", "p2", 2), ("u1", "p1", 3)],
        ),
    ],
)
def test_of_repeated_rows_one_is_kept(tmp_path, capsys, content, how, kept):
    dataset = own.load(own.write(tmp_path, ratings=content), duplicates=how)
    assert own.rows(dataset) == kept
    assert (
        "ratings.csv: 2 rows repeat a user and product; kept the latest row"
        in capsys.readouterr().out
    )


def test_repeated_rows_can_be_an_error_in_every_data_set(tmp_path):
    with pytest.raises(
        TfrecError,
        match=r"^ratings.csv, row 4: user u1 and product p1 stand in an earlier row, too",
    ):
        own.load(own.write(tmp_path, ratings=TWICE), duplicates="error")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,A,Drama\n")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n7,1,2,0\n7,1,4,9\n")
    edition = {"dataset": "latest", "data_dir": str(tmp_path)}
    with pytest.raises(TfrecError, match=r"^ratings.csv, row 3: user 7 and product 1"):
        sources.read(make_config(duplicates="error", **edition).data)
    tables = sources.read(make_config(duplicates="mean", **edition).data)
    assert (
        tables.rows.frame()[["rating", "timestamp"]].to_numpy().tolist() == [[3, 9]]
        and len(tables.notes) == 2  # of the times, too
    )


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "files"}, "--dataset=files needs --interactions=FILE, or --split=files with"),
        (
            {
                "dataset": "files",
                "interactions": "a",
                "split": "files",
                "train_file": "b",
                "test_file": "c",
            },
            "--dataset=files needs",
        ),
        ({"dataset": "file"}, r"--dataset=file: expected one of .* Did you mean files\?"),
        ({"dataset": "tfds:"}, "--dataset=tfds:: expected one of"),
        (
            {"interactions": "a"},
            "--interactions: no part of this run has it. It goes with --dataset=files.",
        ),
        (
            {"separator": ";", "dataset": "tfds:x"},
            "--separator: no part of this run has it. It goes with --dataset=files.",
        ),
        (
            {"user_column": "u"},
            "--user_column: no part of this run has it. It goes with --dataset=files or tfds:NAME.",
        ),
        (
            {"dataset": "files", "interactions": "a", "data_dir": "b"},
            "--data_dir: no part of this run has it. It goes with --dataset=latest-small",
        ),
        (
            {"dataset": "files", "interactions": "a", "columns": ("user", "rating")},
            "--columns=user,rating: user and product must",
        ),
        (
            {"dataset": "files", "interactions": "a", "columns": ("user", "product", "user")},
            "--columns=.*: a column stands there twice",
        ),
        (
            {"dataset": "files", "interactions": "a", "columns": ("user", "item")},
            "--columns=item: expected one of user, product",
        ),
        (
            {"dataset": "files", "interactions": "a", "separator": "\t"},
            "--separator: write separator=tab",
        ),
        (
            {"dataset": "files", "interactions": "a", "user_column": "product"},
            "--user_column, product_column.* must differ",
        ),
        (
            {"dataset": "files", "interactions": "a", "products_numeric": ("x",)},
            "--products_numeric=x: there is no table of products",
        ),
        (
            {
                "dataset": "files",
                "interactions": "a",
                "products": "b",
                "products_numeric": ("x", "x"),
            },
            "--products_numeric: column x stands",
        ),
        (
            {
                "dataset": "files",
                "interactions": "a",
                "products": "b",
                "products_categorical": ("title",),
            },
            "--products_categorical: column title is the",
        ),
        (
            {"dataset": "tfds:x", "split": "files", "train_file": "b", "test_file": "c"},
            "--split=files needs --dataset=files or",
        ),
        ({"context": ()}, "--context: the list is empty"),
        ({"context": ("minute",)}, "--context=minute: expected one of daytime"),
    ],
)
def test_settings_that_do_not_go_together(changes, message):
    with pytest.raises(UsageError, match=f"^{message}") as error:
        make_config(**changes)
    assert "\n" not in str(error.value)


def test_the_flag_file_of_a_run_brings_back_its_settings(tmp_path):
    wanted = make_config(
        dataset="files",
        interactions="my data/r.csv",
        columns=("user", "-", "product"),
        separator=";",
        products="p.csv",
        products_multivalued=("tags", "more tags"),
        value_separator="|",
        context=("hour",),
    )
    (tmp_path / "config.flags").write_text(wanted.flagfile())
    assert read_flagfile(tmp_path / "config.flags") == wanted


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("side", ["products", "users"])
def test_an_id_of_a_table_with_a_nul_is_told(tmp_path, side, quote):
    head, first = getattr(own, side.upper()).splitlines()[:2]
    name, _, rest = first.partition(",")
    own.write(tmp_path, **{side: f"{head}\n{first}\n{quote}{name}\0{quote},{rest}\n"})
    with pytest.raises(
        TfrecError,
        match=rf"^{side}\.csv, row 3, column {side[:-1]}: \"{name}\\x00\" holds a NUL, which no "
        rf"id may\.",
    ):
        own.load(tmp_path, tables=True)
    ids = pd.DataFrame({"product": ["p1", "p1\0"], "title": ["a", "b"]})
    ids.to_parquet(tmp_path / "products.parquet")
    with pytest.raises(
        TfrecError, match=r"^products\.parquet, row 2, column product: .*holds a NUL"
    ):
        own.load(tmp_path, products=str(tmp_path / "products.parquet"))
