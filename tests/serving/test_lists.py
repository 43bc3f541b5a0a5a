"""What callers may give, and what is refused in words."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, replace, some_config
from tests.serving.test_export import NO_CONTEXT, NO_TIME, ROWS, fold, serve, text
from tfrec.data import ingest
from tfrec.data.dataset import Dataset
from tfrec.data.reading import database
from tfrec.errors import TfrecError
from tfrec.experiments import parts, run
from tfrec.models.mf import MatrixFactorization
from tfrec.serving import ids
from tfrec.serving.export import ServingModule

NONE = tf.zeros([0, 0], tf.int64), tf.zeros([0], tf.int64)


def a_model(dataset, **settings):
    tf.keras.utils.set_random_seed(0)
    task = settings.get("task", "rating")
    model = MatrixFactorization.from_data(dataset.interactions, task, embedding_dim=3)
    for weight in model.trainable_weights:
        weight.assign_add(
            tf.random.stateless_normal(weight.shape, [2, weight.shape.rank], stddev=0.4)
        )
    return serve(model, dataset, **settings)


@pytest.fixture(scope="module")
def world():
    dataset = make_dataset()
    return dataset, a_model(dataset)


def recommend(server, dataset, users, exclude=(), context=NO_CONTEXT, k=9):
    exclude = tf.constant(
        np.array(exclude, np.int64).reshape(len(exclude), -1 if len(exclude) else 0)
    )
    user = tf.constant(dataset.catalog.user_ids[users])
    return server.recommend(
        user,
        tf.constant(k),
        tf.constant(context, tf.float32),
        NO_TIME,
        exclude,
        NONE[1],
        tf.constant(False),
    )


def test_a_single_row_is_for_all_users(world):
    dataset, server = world
    answer = recommend(server, dataset, [0, 3, 5], [[1002, -1, 1004]])
    each = recommend(server, dataset, [0, 3, 5], [[1002, -1, 1004]] * 3)
    for name, values in answer.items():
        np.testing.assert_array_equal(values, each[name])
    there = np.isfinite(answer["score"])
    assert (
        there.sum(axis=1).tolist() == [7, 7, 7]
        and not np.isin(answer["product"].numpy()[there], [1002, 1004]).any()
    )
    assert recommend(server, dataset, [], [[1002]])["product"].shape == (0, 9)


def test_other_shapes_are_refused_in_words(world):
    dataset, server = world
    one, two, score = (
        tf.constant(dataset.catalog.product_ids[[[1]]]),
        tf.constant(dataset.catalog.product_ids[[[1], [2]]]),
        server.score,
    )
    calls = {
        "exclude: expected a row for each": lambda: recommend(
            server, dataset, [0], [[1002], [1003]]
        ),
        "context: expected a row for each": lambda: recommend(
            server, dataset, [0, 1, 2], context=np.zeros((2, 2))
        ),
        "k: expected 1 or more": lambda: recommend(server, dataset, [0], k=0),
        "product and rating: expected the same shape": lambda: server.recommend_for_history(
            two, tf.ones([1, 1]), 3, NO_CONTEXT, NO_TIME, *NONE
        ),
        "user and product: expected the same shape": lambda: score(
            tf.constant(dataset.catalog.user_ids[:2]), one[0], NO_CONTEXT, NO_TIME
        ),
    }
    for message, call in calls.items():
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call()
    with pytest.raises(tf.errors.InvalidArgumentError, match="k: expected"):
        server.similar(one[0], tf.constant(-3))


def test_a_k_beyond_the_products_costs_no_more_than_they_do(world):
    dataset, server = world
    assert recommend(server, dataset, [0, 1], k=2**31 - 1)["score"].shape == (2, 9)
    assert server.similar(tf.constant(dataset.catalog.product_ids[:1]), tf.constant(2**31 - 1))[
        "score"
    ].shape == (1, 9)


@pytest.mark.parametrize(("task", "power"), [("rating", 0.0), ("ranking", 0.0), ("ranking", 3.0)])
def test_a_rating_that_is_no_number_is_padding(task, power):
    dataset = make_dataset()
    server = a_model(dataset, task=task, confidence_power=power)
    got = fold(server, dataset, np.array([0, 2, 5]), [4.0, np.nan, 2.0], k=9)
    without = fold(server, dataset, np.array([0, 5]), [4.0, 2.0], k=9)
    assert (
        np.isfinite(got["score"][0][:6]).all() and np.isneginf(got["score"][0][6:]).all()
    )  # what was named is not recommended
    scores = [dict(zip(answer["product"][0], answer["score"][0])) for answer in (got, without)]
    for product, score in scores[0].items():
        assert score == pytest.approx(scores[1][product], rel=1e-4)
    nothing = fold(server, dataset, np.array([0, 2]), [np.nan, np.nan])
    assert text(nothing["source"]) == ["popularity"] and not np.isnan(nothing["score"]).any()


CLOSED = ["popularity", "content", "ease", "ials", "item_knn", "user_knn"]


@pytest.mark.parametrize("name", [*CLOSED, "mf"])
@pytest.mark.parametrize("task", ["rating", "ranking"])
def test_what_is_given_twice_counts_once(name, task):
    if task == "rating" and name in ("content", "ease", "ials"):
        return
    dataset = make_dataset()
    if name == "mf":
        server = a_model(dataset, task=task)
    else:
        config = some_config(model=name, task=task, embedding_dim=4, ease_l2=2.0)
        model = parts.make_model(dataset.interactions.take(ROWS), config)
        model.fit_closed_form(model.data)
        server = serve(model, dataset, task=task)
    once = fold(server, dataset, np.array([2, 5]), [5.0, 2.0])
    for index, rating in (([2, 5, 2], [5.0, 2.0, 5.0]), ([5, 5, 5, 2], [4.0, 1.0, 2.0, 5.0])):
        twice = fold(server, dataset, np.array(index), rating)
        np.testing.assert_array_equal(once["product"], twice["product"])
        np.testing.assert_allclose(once["score"], twice["score"], rtol=1e-4)


LIKES = {"task": "ranking", "confidence_power": 2.0, "loss": "sigmoid"}


@pytest.mark.parametrize(
    ("settings", "most"),
    [
        ({"task": "rating"}, 0.05),
        (LIKES | {"exclude_positives": False}, 0.05),
        (LIKES, 0.15),  # negatives are drawn among a third of the products
    ],
    ids=["rating", "likes", "likes-among-others"],
)
def test_folding_in_what_a_user_had_in_training_gives_their_scores(settings, most, tmp_path):
    """Both are the least of training's objective.

    The mean of weight x (loss + l2 |row|^2), biases free.
    """
    random = np.random.RandomState(0)
    taste, kinds = random.normal(size=(30, 2)), random.normal(size=(20, 2))
    pairs = random.permutation(600)[:400]
    rating = np.clip(np.round(3 + (taste[pairs // 20] * kinds[pairs % 20]).sum(1)), 1, 5)
    pd.DataFrame({"user": pairs // 20, "product": pairs % 20, "rating": rating}).to_csv(
        tmp_path / "r.csv", index=False
    )
    trained = run.Run.begin(
        some_config(
            dataset="files",
            interactions=str(tmp_path / "r.csv"),
            model="mf",
            embedding_dim=3,
            epochs=200,
            l2=0.05,
            learning_rate=0.03,
            batch_size=400,
            early_stopping=0,
            validation_fraction=0.0,
            split="random",
            test_fraction=0.01,
            negatives=20,
            similarity="dot",
            biases=True,
            workdir=str(tmp_path / "run"),
            **settings,
        )
    )
    split, model = trained.split, trained.model
    parts.make_trainer(trained.strategy, model, trained.settings).fit(split.train, hooks=[])
    server = ServingModule(model, split, trained.fallbacks)
    catalog = split.catalog
    mine = [split.train.of_users(np.array([user])) for user in range(30)]
    product = tf.ragged.constant([catalog.product_ids[each.product] for each in mine])
    product = product.to_tensor(-1)
    given = tf.ragged.constant([each.rating for each in mine]).to_tensor(np.nan)
    no_context, nothing = tf.zeros([0, 0]), tf.zeros([0, 0], tf.int64)
    user, k = tf.constant(catalog.user_ids), tf.constant(20)
    known = server.recommend(user, k, no_context, NO_TIME, nothing, NONE[1], tf.constant(True))
    folded = server.recommend_for_history(
        tf.cast(product, tf.int64), tf.cast(given, tf.float32), k, no_context, NO_TIME, *NONE
    )
    errors, scores = [], []
    for row in range(30):
        one, other = (
            dict(zip(answer["product"].numpy()[row], answer["score"].numpy()[row]))
            for answer in (known, folded)
        )
        shared = [product for product in one if product != -(2**63)]
        errors += [one[product] - other[product] for product in shared]
        scores += [one[product] for product in shared]
    assert text(folded["source"]) == ["fold_in"] * 30

    assert np.sqrt(np.mean(np.square(errors))) < most * np.std(scores)


@pytest.mark.parametrize(("bad", "other"), [(-(2**63), 3), ("", "x")])
def test_padding_is_no_id_of_the_data(bad, other):
    products = pd.DataFrame(
        {"title": ["a", "b"], "name": ["a", "b"], "year": [1, 2]}, index=pd.Index([bad, other])
    )
    frame = pd.DataFrame({"user": [1, 2], "product": [bad, other]})
    rows = ingest.of_frame(database(), frame, {"user": None, "product": products})
    tables = ingest.Tables(rows, products, shown=("title", "name", "year"))
    with pytest.raises(
        TfrecError, match=f"product {bad!r}: in lists of products this id stands for none"
    ):
        Dataset.from_tables(tables, some_config().data)


def test_a_product_that_is_called_minus_one_is_a_product():
    dataset = make_dataset()
    dataset = replace(dataset, product_ids=np.array([-1, *dataset.catalog.product_ids[1:]]))
    server, none = a_model(dataset), -(2**63)
    shown = recommend(server, dataset, [0], [[1002, none]])["product"].numpy()[0]
    assert -1 in shown and shown[-1] == none
    folded = [
        server.recommend_for_history(
            tf.constant([likes], tf.int64), tf.zeros([0, len(likes)]), 9, NO_CONTEXT, NO_TIME, *NONE
        )["product"].numpy()[0]
        for likes in ([1002, none, none], [1002])
    ]
    np.testing.assert_array_equal(*folded)
    assert -1 in folded[0] and folded[0][-1] == none


def test_texts_take_the_memory_of_their_bytes():
    """Numpy's own texts would make each of 20,000 as long as the longest: 800 MB."""
    names = np.array([f"Item {i}" for i in range(20_000)] + ["x" * 10_000], object)
    assert ids._plain(names).nbytes < 1e6
    dataset = replace(
        make_dataset(),
        products=pd.DataFrame({"title": ["x" * 10_000, *[f"Product {i}" for i in range(8)]]}),
    )
    assert text(recommend(a_model(dataset), dataset, [0])["title"])[0]
