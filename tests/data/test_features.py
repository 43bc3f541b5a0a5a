"""Columns become numbers (oracle.

Scikit-learn), and time becomes context (oracle: datetime and zoneinfo).
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import MultiLabelBinarizer

from tests.data import editions
from tfrec.data import features, ingest, tables
from tfrec.data.dataset import Dataset
from tfrec.data.reading import database
from tfrec.data.sources import Tables
from tfrec.data.tables import Attributes
from tfrec.errors import UsageError
from tfrec.experiments.config import make_config

words = st.sampled_from(["Child", "Children", "Sci-Fi", "Fi", "é", "a=b", "a|b"])


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(words, unique=True), words, st.integers(-9, 9), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_encoding_is_one_hot_for_texts_and_multi_hot_for_lists(rows):
    table = pd.DataFrame(rows, columns=["many", "one", "number", "flag"])
    encoded = features.encode(table)
    many, one = MultiLabelBinarizer(), MultiLabelBinarizer()
    parts = [
        many.fit_transform(table["many"]),
        one.fit_transform([[word] for word in table["one"]]),
        table[["number", "flag"]],
    ]
    np.testing.assert_array_equal(encoded.dense(), np.concatenate(parts, axis=1))
    assert (encoded.values != 0).all() and encoded.values.dtype == np.float32
    assert encoded.names == (
        *(f"many={word}" for word in many.classes_),
        *(f"one={word}" for word in one.classes_),
        "number",
        "flag",
    )


def test_a_table_without_columns_has_no_features():
    encoded = features.encode(pd.DataFrame(index=range(3)))
    assert (encoded.shape, encoded.names) == ((3, 0), ())


def test_the_builtin_data_set(movielens):
    dataset, products = movielens.dataset, movielens.tables.products
    genres = MultiLabelBinarizer()
    expected = np.concatenate(
        [products[["old"]], genres.fit_transform(products["genres"])], axis=1
    ).astype(np.float32)
    np.testing.assert_array_equal(dataset.catalog.features.dense(), expected)
    assert dataset.catalog.features.shape == (9742, 20)
    assert dataset.catalog.features.names == (
        "old",
        *(f"genres={genre}" for genre in genres.classes_),
    )
    assert dataset.catalog.user_features.shape == (610, 0)
    assert (len(dataset), dataset.catalog.num_users, dataset.catalog.num_products) == (
        100836,
        610,
        9742,
    )


def of(rows: pd.DataFrame, products: pd.DataFrame, users: pd.DataFrame | None = None) -> Tables:
    """Tables of frames, without the checks that sources make."""
    found = ingest.of_frame(database(), rows, {"product": products, "user": users})
    return Tables(found, products, users, ("title", "name", "year"))


def test_years_in_bins():
    products = pd.DataFrame(
        {"title": list("abcd"), "name": list("abcd"), "year": [1994, 1995, np.nan, 1999]},
        index=[1, 2, 3, 4],
    )
    tables = of(pd.DataFrame({"user": [1], "product": [4], "rating": [3.0]}), products)
    dataset = Dataset.from_tables(tables, make_config(year_bins=5).data)
    assert dataset.catalog.features.names == (
        "years=(missing)",
        "years=1990-1994",
        "years=1995-1999",
    )
    np.testing.assert_array_equal(
        dataset.catalog.features.dense(), [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]]
    )
    tables.products["year"] = "long ago"
    with pytest.raises(UsageError, match="--year_bins=5: the products have no column year"):
        Dataset.from_tables(tables, make_config(year_bins=5).data)


def test_a_user_who_has_only_attributes_is_there(movielens):
    interactions = pd.DataFrame(
        {"user": [7, 3, 7], "product": [1, 1, 2], "rating": [1.0, 2.0, 3.0]}
    )
    products = pd.DataFrame({"title": ["a", "b"]}, index=pd.Index([1, 2], name="product"))
    users = pd.DataFrame({"gender": ["F", "M", "F"]}, index=pd.Index([5, 7, 3], name="user"))
    dataset = Dataset.from_tables(of(interactions, products, users), make_config().data)
    assert dataset.catalog.user_ids.tolist() == [
        3,
        5,
        7,
    ] and dataset.interactions.user.tolist() == [2, 0, 2]
    assert dataset.catalog.user_features.dense().tolist() == [[1, 0], [1, 0], [0, 1]]


def test_positions_lead_back_to_the_raw_ids(movielens):
    dataset, rows = movielens.dataset, movielens.tables.rows.frame()
    np.testing.assert_array_equal(dataset.catalog.user_ids[dataset.interactions.user], rows["user"])
    np.testing.assert_array_equal(
        dataset.catalog.product_ids[dataset.interactions.product], rows["product"]
    )
    np.testing.assert_array_equal(dataset.catalog.product_ids, movielens.tables.products.index)
    np.testing.assert_array_equal(dataset.interactions.rating, rows["rating"])
    np.testing.assert_array_equal(dataset.interactions.timestamp, rows["timestamp"])
    assert list(dataset.catalog.products["title"]) == list(movielens.tables.products["title"])
    assert (
        dataset.interactions.user.dtype,
        dataset.interactions.product.dtype,
        dataset.interactions.rating.dtype,
    ) == (
        np.int32,
        np.int32,
        np.float32,
    )


@pytest.mark.parametrize("name", ["100k", "1m"])
def test_user_features_stand_in_the_order_of_the_user_ids(tmp_path, name):
    dataset = Dataset.from_tables(
        editions.read(editions.write(tmp_path, name), name), make_config(dataset=name).data
    )
    assert list(dataset.catalog.user_ids) == [4, 9, 11]  # 11 rates nothing
    hot = [
        {name for name, on in zip(dataset.catalog.user_features.names, row) if on}
        for row in dataset.catalog.user_features.dense()
    ]
    assert hot[:2] == [
        {"age=18-24", "gender=M", "occupation=technician"},
        {"age=56+", "gender=F", "occupation=writer"},
    ]


def with_times(seconds: list[int] | None, time_zone: str = "UTC", **settings):
    rows = pd.DataFrame(
        {"user": 1, "product": 1, "rating": 3.0}, index=range(len(seconds) if seconds else 2)
    )
    if seconds:
        rows["timestamp"] = np.array(seconds, np.int64)
    products = pd.DataFrame({"title": ["t"], "old": [True]}, index=[1])
    return Dataset.from_tables(
        of(rows, products),
        make_config(time_zone=time_zone, **settings).data,
    )


def expected_context(seconds: int, time_zone: str) -> list[bool]:
    local = datetime.fromtimestamp(seconds, ZoneInfo(time_zone))
    return [6 < local.hour < 20, local.strftime("%a") in ("Sat", "Sun")]


@pytest.mark.parametrize(
    "time_zone", ["UTC", "Europe/Vienna", "America/New_York", "Asia/Kolkata", "Pacific/Auckland"]
)
def test_daytime_and_weekend_at_their_borders(time_zone):
    friday = datetime(
        2024, 3, 29, tzinfo=ZoneInfo(time_zone)
    )  # Vienna's clocks change on the Sunday after
    times = [
        int((friday + timedelta(days=day, hours=hour, seconds=second)).timestamp())
        for day in range(4)
        for hour in (0, 6, 7, 19, 20)
        for second in (-1, 0)
    ]
    dataset = with_times(times, time_zone)
    assert dataset.catalog.context_names == ("daytime", "weekend")
    np.testing.assert_array_equal(
        dataset.interactions.context, [expected_context(time, time_zone) for time in times]
    )
    assert len(np.unique(dataset.interactions.context, axis=0)) == 4


def test_the_hours_of_daytime_by_hand():
    monday = 1711929600  # 2024-04-01 00:00 UTC
    at = [6, 7, 19, 20]
    assert with_times([monday + 3600 * hour for hour in at]).interactions.context[
        :, 0
    ].tolist() == [0, 1, 1, 0]
    assert with_times([monday + 86400 * day for day in (-3, -2, -1, 0)]).interactions.context[
        :, 1
    ].tolist() == [
        0,
        1,
        1,
        0,
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**32), min_size=1),
    st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns"]),
)
def test_context_at_any_time(times, time_zone):
    expected = [expected_context(time, time_zone) for time in times]
    np.testing.assert_array_equal(with_times(times, time_zone).interactions.context, expected)


def test_the_default_context_is_monday_evening(movielens):
    monday = int(datetime(2024, 4, 1, 21, tzinfo=ZoneInfo("UTC")).timestamp())
    np.testing.assert_array_equal(
        movielens.dataset.catalog.default_context, with_times([monday]).interactions.context[0]
    )


def test_without_timestamps_there_is_no_context():
    dataset = with_times(None)
    assert dataset.interactions.timestamp is None
    assert (
        dataset.interactions.context.shape,
        dataset.catalog.default_context.shape,
        dataset.catalog.context_names,
    ) == (
        (2, 0),
        (0,),
        (),
    )


@pytest.mark.parametrize(
    ("wrong", "hint"), [("Europe/Viena", "Did you mean Europe/Vienna?"), ("", ""), ("../etc", "")]
)
def test_an_unknown_time_zone_ends_in_one_line(wrong, hint):
    with pytest.raises(UsageError) as error:
        with_times([0], wrong)
    assert str(error.value).startswith(f"--time_zone={wrong}: there is no such time zone.")
    assert hint in str(error.value) and "\n" not in str(error.value)


PERIODS = {"hour": ("%H", 24, 0), "weekday": ("%u", 7, 1), "month": ("%m", 12, 1)}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 2**32), min_size=1),
    st.permutations(list(PERIODS)),
    st.sampled_from(["UTC", "America/St_Johns"]),
)
def test_hour_weekday_and_month_on_a_circle_or_one_column_a_value(times, kinds, time_zone):
    cyclic = with_times(times, time_zone, context=tuple(kinds))
    categorical = with_times(times, time_zone, context=tuple(kinds), context_encoding="categorical")
    circle, hot = [], []
    for time in times:
        local = datetime.fromtimestamp(time, ZoneInfo(time_zone))
        at = [
            (int(local.strftime(PERIODS[kind][0])) - PERIODS[kind][2], PERIODS[kind][1])
            for kind in kinds
        ]
        circle.append(
            [f(2 * np.pi * value / period) for value, period in at for f in (np.sin, np.cos)]
        )
        hot.append([float(value == other) for value, period in at for other in range(period)])
    np.testing.assert_allclose(cyclic.interactions.context, circle, atol=1e-6)
    np.testing.assert_array_equal(categorical.interactions.context, hot)
    assert cyclic.catalog.context_names == tuple(
        f"{kind}_{f}" for kind in kinds for f in ("sin", "cos")
    )
    assert len(set(categorical.catalog.context_names)) == 43 and {
        "hour=23",
        "weekday=Mon",
        "month=Dec",
    } <= set(categorical.catalog.context_names)


def test_the_date_in_decades_since_2000():
    times = [
        int(datetime(year, 1, 1, tzinfo=ZoneInfo("UTC")).timestamp())
        for year in (1995, 2000, 2020, 2010)
    ]
    dataset = with_times(times, context=("date",))
    np.testing.assert_allclose(dataset.interactions.context[:, 0], [-0.5, 0, 2, 1], atol=1e-3)
    np.testing.assert_allclose(
        dataset.catalog.default_context, [2], atol=1e-3
    )  # serving goes on where the data end


@pytest.mark.parametrize("encoding", ["cyclic", "categorical"])
def test_the_default_context_of_any_kind_is_a_monday_evening_of_no_month(encoding):
    monday = int(datetime(2023, 10, 9, 21, tzinfo=ZoneInfo("UTC")).timestamp())
    dataset = with_times(
        [monday],
        context=("hour", "weekend", "weekday", "month", "daytime"),
        context_encoding=encoding,
    )
    expected = [
        0 if name.startswith("month") else value
        for name, value in zip(dataset.catalog.context_names, dataset.interactions.context[0])
    ]
    np.testing.assert_array_equal(dataset.catalog.default_context, np.float32(expected))
    assert dataset.interactions.context.dtype == dataset.catalog.default_context.dtype == np.float32


def test_words_weigh_as_scikit_learn_weighs_them(movielens):
    titles = movielens.tables.products["title"].iloc[:500].reset_index(drop=True)
    titles[3] = None
    found = features.words(titles)
    oracle = TfidfVectorizer(token_pattern=r"[^\W_]+", min_df=2)
    expected = oracle.fit_transform(titles.fillna(""))
    assert found.names == tuple(f"title={word}" for word in oracle.get_feature_names_out())
    np.testing.assert_allclose(found.dense(), expected.toarray(), rtol=1e-5, atol=1e-7)
    assert not found.take(np.array([3])).dense().any()


def test_words_of_any_script_in_lower_case_and_those_of_one_text_alone_left_out():
    texts = pd.Series(["Über CAFÉ 7", "über café's 7", "кино 'x'", "Кино; y"], name="about")
    found = features.words(texts)
    assert found.names == tuple(f"about={word}" for word in ("7", "café", "über", "кино"))
    latin, cyrillic = [3**-0.5] * 3 + [0], [0, 0, 0, 1]
    np.testing.assert_allclose(found.dense(), [latin, latin, cyrillic, cyrillic], rtol=1e-6)


def test_of_more_words_than_a_column_may_have_the_most_common_stay(monkeypatch):
    monkeypatch.setattr(features, "MOST_VALUES", 2)
    found = features.words(pd.Series(["a b c", "a b c d", "d b e", "b e"], name="t"))
    assert found.names == ("t=a", "t=b")


@pytest.mark.parametrize("bins", (1, 2, 4, 50))
def test_numbers_in_bins_of_about_as_many_each(bins):
    values = pd.Series([1.0, np.nan, 2, 3, 4, 5, 6, 7, 8, 100])
    table = pd.DataFrame({"title": "x", "price": values})
    filled = tables.complete(
        table, "product", np.arange(10), Attributes(numeric=("price",), bins=bins), []
    )
    count = filled["price"].value_counts()
    assert count["(missing)"] == 1 and "price=(missing)" not in filled
    known = count.drop("(missing)")
    assert len(known) == min(bins, 9) and known.max() - known.min() <= 2
    for value, name in zip(values[values.notna()], filled["price"][values.notna()]):
        low, high = name.split("..") if ".." in name else (name, name)
        assert float(low) <= value <= float(high)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1] * 6, ["0", "1"] * 6),
        ([0] * 9 + [5, 7], ["0"] * 9 + ["0..7"] * 2),
        ([9.99, 20, 30.5, 41], ["9.99..20", "9.99..20", "20..41", "20..41"]),
        ([1e308] * 6 + [-1e308] * 6, ["1e+308"] * 6 + ["-1e+308"] * 6),
        ([5.0] * 3, ["5"] * 3),
        ([np.nan] * 3, ["(missing)"] * 3),
        ([1.6e12, 1.6e12 + 1, 1.6e12 + 2, 1.6e12 + 3], None),
    ],
)
@pytest.mark.parametrize("dtype", (float, np.float32))
def test_what_is_as_common_as_a_bin_is_one_by_itself(values, expected, dtype):
    with np.errstate(over="ignore"):
        values = pd.Series(values, dtype=dtype)
    if np.isinf(values).any():
        return
    found = tables._binned(values, 2)
    if expected is None:
        assert found.nunique() == min(2, values.nunique())
    else:
        assert found.tolist() == expected
