"""What rows mean that are no ratings: events, weights, repeated rows, likes; rare users go."""

import math
import threading

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import make_dataset, replace, some_config
from tests.data import own
from tests.data.test_disk_batches import written
from tfrec import losses
from tfrec.data import features, ingest, prepare, to_disk
from tfrec.data.dataset import Dataset, read
from tfrec.data.disk import open_folder
from tfrec.data.interactions import Split
from tfrec.data.negatives import Negatives
from tfrec.data.reading import database
from tfrec.errors import TfrecError, UsageError
from tfrec.models import Ease, ImplicitALS, Popularity
from tfrec.models.neighbours import counted
from tfrec.system import progress

EVENTS = (
    "user,product,timestamp,type\n"
    "u1,p1,5,view\nu1,p1,9,buy\nu1,p1,7,view\nu2,p1,1,cart\nu2,p2,2,view\nu3,p2,3,remove\n"
)
SHOP = {"event_column": "type", "event_weights": ("view:1", "cart:3", "buy:10")}
rows = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 3),
        st.integers(1, 5),
        st.integers(0, 4),
        st.integers(1, 9),
    ),
    min_size=1,
    max_size=30,
)


def table(content: list[tuple]) -> pd.DataFrame:
    frame = pd.DataFrame(content, columns=["user", "product", "rating", "timestamp", "weight"])
    return frame.astype({"rating": np.float32, "timestamp": np.int64, "weight": np.float32})


def refined(frame: pd.DataFrame, **changed) -> tuple[pd.DataFrame, list[str]]:
    """The rows that are left, with raw ids, and the notes."""
    found, notes = ingest.of_frame(database(), frame), []
    found.refine(some_config(dataset="files", interactions="a", **changed).data, "t", str, notes)
    return found.frame(), notes


@pytest.mark.parametrize("how", ["last", "mean", "max", "sum"])
@settings(max_examples=25, deadline=None)
@given(content=rows)
def test_repeated_rows_become_one_as_pandas_groups_them(how, content):
    frame = table(content)
    latest = frame.sort_values("timestamp", kind="stable").drop_duplicates(
        ["user", "product"], keep="last"
    )
    expected = latest.sort_index()
    if how != "last":
        groups = frame.groupby(["user", "product"])[["rating", "weight"]].agg(how).reset_index()
        keys = expected[["user", "product"]].merge(groups, how="left")
        expected = expected.assign(
            rating=keys["rating"].to_numpy(), weight=keys["weight"].to_numpy()
        )
    found, notes = refined(frame, duplicates=how)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_names=False, rtol=1e-6)
    dropped = len(frame) - len(expected)
    assert bool(notes) == bool(dropped)
    assert not notes or notes[0].startswith(f"t: {dropped} rows repeat a user and product; kept")


@settings(max_examples=40, deadline=None)
@given(content=rows, users=st.integers(0, 3), products=st.integers(0, 3))
def test_users_and_products_with_few_rows_go_until_all_have_enough(content, users, products):
    frame = expected = table(content).drop_duplicates(["user", "product"])
    while True:
        size = len(expected)
        for side, least in (("user", users), ("product", products)):
            expected = expected[expected.groupby(side)[side].transform("size") >= least]
        if len(expected) == size:
            break
    least = {"min_user_rows": users, "min_product_rows": products}
    if not len(expected):
        with pytest.raises(TfrecError, match="t: no row is left"):
            refined(frame, **least)
        return
    found, _ = refined(frame, **least)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_names=False)


def test_only_products_with_rows_are_left_and_who_has_attributes_alone_stays(tmp_path, capsys):
    own.write(tmp_path)
    data = own.load(tmp_path, tables=True, min_product_rows=2)
    assert list(data.catalog.product_ids) == ["p1", "p2"]
    assert list(data.catalog.user_ids) == ["u1", "u2", "u3"]
    assert list(data.catalog.products["title"]) == ["First", "Second"]
    assert (
        "ratings.csv: left out 0 users and 2 products, 1 rows (--min_product_rows=2)"
        in capsys.readouterr().out
    )


def load(tmp_path, content: str = EVENTS, **changed) -> Dataset:
    (tmp_path / "events.csv").write_text(content)
    return read(tmp_path / "events.csv", **SHOP | changed)


def weights(data: Dataset) -> dict[tuple[str, str], float]:
    ids, columns = data.catalog, data.columns
    users, products = ids.user_ids[columns["user"]], ids.product_ids[columns["product"]]
    return dict(zip(zip(users, products), columns["weight"].tolist()))


def test_events_weigh_and_others_are_left_out(tmp_path, capsys):
    data = load(tmp_path)
    assert weights(data) == {("u1", "p1"): 10, ("u2", "p1"): 3, ("u2", "p2"): 1}
    assert data.columns["timestamp"].tolist() == [9, 1, 2]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "events.csv: left out 1 row of other events, such as remove",
        "events.csv: 2 rows repeat a user and product; kept the latest row with the greatest "
        "weight of each",
    ]


def test_weights_add_up_and_counts_go_by_their_logarithm(tmp_path):
    assert weights(load(tmp_path, duplicates="sum"))["u1", "p1"] == 12
    log = weights(load(tmp_path, duplicates="sum", weight_scale="log"))
    assert log["u1", "p1"] == pytest.approx(math.log2(13)) and log["u2", "p2"] == 1


def test_rows_without_weights_are_counted_by_sum(tmp_path):
    (tmp_path / "taken.csv").write_text("user,product\na,x\na,x\nb,x\na,x\n")
    data = read(tmp_path / "taken.csv", duplicates="sum")
    assert weights(data) == {("a", "x"): 3, ("b", "x"): 1}


def test_a_column_of_weights_multiplies_that_of_events_and_frames_do_as_files(tmp_path):
    content = EVENTS.replace("type", "type,count").replace("view", "view,2").replace("buy", "buy,3")
    content = content.replace("cart", "cart,1").replace("remove", "remove,9")
    data = load(tmp_path, content, weight_column="count")
    assert weights(data) == {("u1", "p1"): 30, ("u2", "p1"): 3, ("u2", "p2"): 2}
    frame = pd.read_csv(tmp_path / "events.csv")
    same = Dataset.from_pandas(frame, **SHOP, weight_column="count")
    assert weights(same) == weights(data)


def test_an_event_that_does_not_occur_is_said(tmp_path, capsys):
    load(tmp_path, event_weights=("view:1", "bui:10"))
    out = capsys.readouterr().out
    assert "no event is called bui. Did you mean buy? (--event_weights)" in out


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("others", [None, "remove"])
def test_no_event_is_another_event(tmp_path, form, others, capsys):
    frame = pd.DataFrame({"user": list("abc"), "product": list("xyx"), "type": ["view"] * 3})
    frame.loc[1, "type"] = None
    if others:
        frame.loc[2, "type"] = others
    if form == "parquet":
        frame.to_parquet(tmp_path / "e.parquet")
    else:
        frame.to_json(tmp_path / "e.jsonl", orient="records", lines=True)
    data = read(tmp_path / f"e.{form}", event_column="type", event_weights=("view:2",))
    assert weights(data) == ({("a", "x"): 2} if others else {("a", "x"): 2, ("c", "x"): 2})
    assert "other events, such as (missing)" in capsys.readouterr().out
    assert weights(data) == weights(
        Dataset.from_pandas(frame, event_column="type", event_weights=("view:2",))
    )


def test_no_event_is_among_those_that_weigh(tmp_path):
    with pytest.raises(TfrecError, match=r"events\.csv: none of its events \(buy, cart, "):
        load(tmp_path, event_weights=("bought:1",))
    with pytest.raises(TfrecError, match=r"interactions: none of its events \(buy"):
        Dataset.from_pandas(
            pd.read_csv(tmp_path / "events.csv"), event_column="type", event_weights=("bought:1",)
        )


def test_what_is_left_out_is_told_reason_by_reason(tmp_path, capsys):
    content = EVENTS.replace("type", "type,rating").replace("view\n", "view,0\n")
    content = content.replace("buy\n", "buy,4\n").replace("cart\n", "cart,3\n")
    load(tmp_path, content.replace("remove\n", "remove,2\n"), missing_ratings=(0.0,))
    assert [line for line in capsys.readouterr().out.splitlines() if "left out" in line] == [
        "events.csv: left out 3 rows without a rating (--missing_ratings)",
        "events.csv: left out 1 row of other events, such as remove",
    ]


def test_missing_ratings_are_compared_as_the_file_has_them(tmp_path):
    frame = pd.DataFrame({"user": [1, 2], "product": 1, "rating": np.float32([0.1, 3])})
    frame.to_parquet(tmp_path / "r.parquet")
    assert len(read(tmp_path / "r.parquet", missing_ratings=(0.1,))) == 1


def test_rows_that_are_not_rated_are_left_out(tmp_path, capsys):
    (tmp_path / "books.csv").write_text("user,product,rating\na,x,0\na,y,7\nb,x,0\nb,y,3\n")
    data = read(tmp_path / "books.csv", missing_ratings=(0.0,))
    assert data.columns["rating"].tolist() == [7, 3] and list(data.catalog.product_ids) == ["y"]
    assert (
        "books.csv: left out 2 rows without a rating (--missing_ratings)" in capsys.readouterr().out
    )
    frame = pd.read_csv(tmp_path / "books.csv")
    assert len(Dataset.from_pandas(frame, missing_ratings=(0.0,))) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"event_weights": ()}, "event_column and event_weights go together"),
        ({"event_column": ""}, "event_column and event_weights go together"),
        ({"event_weights": ("view",)}, "event_weights: view is not such as view:1"),
        ({"event_weights": ("view:no",)}, "event_weights: view:no is not such as view:1"),
        ({"event_weights": ("view:0",)}, "event_weights: view:0 is not such as view:1"),
        ({"event_weights": ("view:1", "view:2")}, "event_weights: an event stands there twice"),
        ({"event_weights": ("view:1e99",)}, "event_weights: view:1e99 is not such as view:1"),
        ({"columns": ("user", "product", "-", "event")}, "event_column: with columns, call it eve"),
        ({"memory_limit": "much"}, "memory_limit=much: expected such as 500MB or 2GB"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, changed, message):
    with pytest.raises(UsageError, match=message) as error:
        load(tmp_path, **changed)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1e-50", "3e38"])
def test_a_weight_that_is_none_is_named(tmp_path, value):
    content = "user,product,n\na,x,1\na,y,?\n".replace("?", value)
    with pytest.raises(TfrecError, match=r"events\.csv, row 3, column n: ") as error:
        load(tmp_path, content, event_column="", event_weights=(), weight_column="n")
    assert "\n" not in str(error.value)


def test_a_logarithm_needs_weights(tmp_path):
    with pytest.raises(UsageError, match="weight_scale=log: the rows have no weights"):
        load(tmp_path, event_column="", event_weights=(), weight_scale="log")


def test_numbers_that_no_column_holds(tmp_path):
    frame = pd.DataFrame({"user": [1, 2], "product": 1, "rating": [1e39, 1], "n": [1, 1e39]})
    with pytest.raises(TfrecError, match=r"interactions, column rating, row 0: 1e.39 is not a num"):
        Dataset.from_pandas(frame)
    with pytest.raises(TfrecError, match=r"interactions, column n, row 1: 1e.39 is"):
        Dataset.from_pandas(frame.drop(columns="rating"), weight_column="n")


def test_a_split_by_files_is_not_of_rows_in_memory(dataset):
    with pytest.raises(UsageError, match=r"split=files: it goes with tfrec.train"):
        dataset.split("files", train_file="a", test_file="b")


def test_ctrl_c_ends_a_statement(monkeypatch):
    con = database()
    threading.Timer(0.3, con.interrupt).start()
    with pytest.raises(KeyboardInterrupt), progress.watched(con.query_progress, "counting"):
        con.execute("SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b")


def test_lack_of_memory_is_no_broken_file(tmp_path):
    lines = [f"user number {at},product number {at % 977}" for at in range(400_000)]
    (tmp_path / "r.csv").write_text("\n".join(["user,product", *lines]))
    try:
        with pytest.raises(TfrecError, match="memory_limit=1MB: it is too little") as error:
            read(tmp_path / "r.csv", memory_limit="1MB")
        assert "\n" not in str(error.value)
    finally:
        database(memory="500MB")


def test_a_table_none_of_whose_ids_occurs_is_an_error(tmp_path):
    own.write(tmp_path, products=own.PRODUCTS.replace("\np", "\nART-"))
    with pytest.raises(TfrecError) as error:
        own.load(tmp_path, tables=True)
    assert str(error.value) == (
        "products table: none of its 4 ids, such as ART-1, is in the interactions, whose ids are "
        "such as p1. Is --products_id the right column?"
    )


# What weights do


@pytest.fixture(scope="module")
def weighted() -> Dataset:
    """60 rows, some of which weigh more."""
    data = make_dataset()
    weight = np.random.RandomState(3).choice([1, 3, 10], len(data)).astype(np.float32)
    return replace(data, weight=weight, weighted=True)


def test_popularity_counts_weights(weighted):
    rows = weighted.interactions.for_task("ranking")
    model = Popularity.from_data(rows, "ranking")
    model.fit_closed_form(rows)
    expected = np.bincount(rows.product, rows.weight, rows.num_products)
    found = model.score({"user": tf.constant([0])}, None)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_implicit_models_count_weights_with_mean_one(weighted):
    rows = weighted.interactions
    keys, counts, _ = counted(rows, 0.0)
    expected = rows.weight[np.argsort(rows.keys)] / rows.weight.mean()
    np.testing.assert_array_equal(keys, np.sort(rows.keys))
    np.testing.assert_allclose(counts, expected, rtol=1e-6)


@pytest.mark.parametrize("model", [Ease, ImplicitALS])
def test_equal_weights_change_nothing(weighted, model):
    plain = replace(weighted, weight=None, weighted=False)
    tripled = replace(weighted, weight=np.full(len(weighted), 3, np.float32))
    found = []
    for data in (plain, tripled, weighted):
        rows = data.interactions.for_task("ranking")
        made = model.from_data(rows, "ranking")
        made.fit_closed_form(rows)
        found.append(made.score({"user": tf.range(12)}, None).numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_batches_weigh_rows_in_proportion(weighted, where, tmp_path):
    config = some_config(split="random").data
    split = weighted.split_by(config)
    if where == "disk":
        split = on_disk(split, tmp_path)
    train, found, total = split.train, {}, 0.0
    steps = iter(train.batches(7, seed=1))
    for _ in range(train.batches(7).steps_per_epoch):
        batch, _, weight = next(steps)
        total += float(tf.reduce_sum(weight))
        found |= dict(zip(zip(batch["user"].numpy(), batch["product"].numpy()), weight.numpy()))
    columns = train.columns()
    keys = zip(columns["user"], columns["product"])
    expected = columns["weight"] / columns["weight"].mean()
    last = len(train) % 7  # rows of the last batch weigh more
    shares = np.array([found[key] for key in keys]) / expected
    assert set(np.round(shares, 4)) <= {1.0, round(7 / last, 4) if last else 1.0, 0.0}


def on_disk(split: Split, folder) -> Split:
    """As test_disk_batches writes it, with weights."""
    return written(split, folder, to_disk.Sizes(block=4, shard=3))


# Likes


def liked(data: Dataset, threshold: float = 3.0, **changed) -> Split:
    config = some_config(split="random", positive_from=threshold, **changed).data
    return data.split_by(config)


def test_rows_below_are_no_positives_but_seen(dataset):
    split, whole = liked(dataset), dataset.split_by(some_config(split="random").data)
    likes, others = split.train, split.train.disliked
    assert likes.rating.min() >= 3 > others.rating.max()
    np.testing.assert_array_equal(np.sort([*likes.keys, *others.keys]), np.sort(whole.train.keys))
    assert len(split.test) == len(whole.test) and len(split.validation) == len(whole.validation)
    for found, expected in zip(split.seen_products(), whole.seen_products()):
        np.testing.assert_array_equal(np.sort(found), np.sort(expected))


def test_no_training_row_is_liked(dataset):
    with pytest.raises(UsageError, match="positive_from=9: no training row has such a rating"):
        liked(dataset, 9.0)


def test_the_first_negative_is_one_that_the_user_dislikes(dataset):
    train = liked(dataset).train
    disliked = set(train.disliked.keys)
    has = set(train.disliked.user)
    plain = iter(train.batches(16, seed=4, negatives=Negatives(3)))
    explicit = iter(train.batches(16, seed=4, negatives=Negatives(3, explicit=True)))
    several: dict[int, set[int]] = {}
    for _ in range(20):
        batch, other = next(explicit)[0], next(plain)[0]
        negatives = batch["negatives"].numpy()
        np.testing.assert_array_equal(negatives[:, 1:], other["negatives"][:, 1:])
        for user, first, drawn in zip(
            batch["user"].numpy(), negatives[:, 0], other["negatives"][:, 0].numpy()
        ):
            if user in has:
                assert user * train.num_products + first in disliked
                several.setdefault(user, set()).add(first)
            else:
                assert first == drawn
    counts = np.bincount(train.disliked.user, minlength=train.num_users)
    assert all(len(found) == counts[user] for user, found in several.items() if counts[user] < 3)


def test_prepared_on_disk_likes_are_those_of_memory(tmp_path):
    own.write(tmp_path)
    config = own.config(tmp_path, positive_from=3.0, validation_fraction=0.0).data
    prepare.prepare(config, tmp_path / "out")
    whole, found = own.load(tmp_path).split_by(config), open_folder(tmp_path / "out")
    disliked = whole.train.disliked
    for one, other in ((found.train, whole.train), (found.train.disliked, disliked)):
        np.testing.assert_array_equal(one.columns()["rating"], other.rating)
    sample = found.sample(100)
    users = np.union1d(sample.validation.users(), sample.test.users())
    np.testing.assert_array_equal(sample.train.disliked.keys, disliked.of_users(users).keys)
    for one, other in zip(found.seen_products(), whole.seen_products()):
        np.testing.assert_array_equal(one, other)
    assert len(found.test) == len(whole.test)


@pytest.mark.parametrize(
    ("content", "least", "message"),
    [
        (own.RATINGS, 9.0, "positive_from=9: no training row has such a rating"),
        ("user,product\na,x\na,y\nb,x\nb,y\n", 1.0, "positive_from=1: the data have no ratings"),
    ],
)
def test_likes_that_the_data_do_not_have(tmp_path, content, least, message):
    own.write(tmp_path, ratings=content)
    config = own.config(tmp_path, positive_from=least).data
    with pytest.raises(UsageError, match=message):
        own.load(tmp_path).split_by(config)
    with pytest.raises(UsageError, match=message):
        prepare.prepare(config, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("least", [None, 0.0])
def test_explicit_negatives_need_some(dataset, least):
    config = some_config(split="random", positive_from=least).data
    with pytest.raises(UsageError, match="explicit_negatives: no training row is known not to be"):
        losses.BPR(explicit_negatives=True).prepare(dataset.split_by(config).train)


@pytest.mark.parametrize(
    ("loss", "more"),
    [("BPR", {"hard_negatives": 20}), ("BPR", {"shared_negatives": 9}), ("SampledSoftmax", {})],
)
def test_what_explicit_negatives_do_not_go_with(dataset, loss, more):
    with pytest.raises(UsageError, match="explicit_negatives"):
        getattr(losses, loss)(explicit_negatives=True, **more).prepare(liked(dataset).train)


def test_context_of_many_rows_in_pieces(monkeypatch, dataset):
    config = some_config(split="random").data
    frame = pd.DataFrame(
        {"user": 1, "product": range(50), "timestamp": range(0, 5_000_000, 100_000)}
    )
    found = ingest.of_frame(database(), frame)
    whole = features.columns(found, config)["context"]
    monkeypatch.setattr(features, "AT_ONCE", 7)
    np.testing.assert_array_equal(features.columns(found, config)["context"], whole)
