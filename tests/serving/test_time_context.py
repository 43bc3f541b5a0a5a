"""A time tells the same in the export as in training."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import batch_of, make_dataset, replace
from tests.serving.test_export import NO_CONTEXT, NO_TIME, export, serve
from tfrec.data import features
from tfrec.data.settings import CONTEXT
from tfrec.experiments import parts
from tfrec.experiments.config import make_config
from tfrec.experiments.tables import MODELS
from tfrec.serving import time_context

ZONES = (
    "UTC",
    "Europe/Vienna",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Monrovia",
    "Asia/Kolkata",
)
CLOCKS = {}


def clock(zone, encoding):
    config = make_config(time_zone=zone, context_encoding=encoding, context=CONTEXT).data
    return config, CLOCKS.setdefault((zone, encoding), time_context.Clock(config))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-(2**31), 2**32), min_size=1),
    st.sampled_from(ZONES),
    st.sampled_from(["cyclic", "categorical"]),
)
def test_any_time_in_any_zone(times, zone, encoding):
    config, tell = clock(zone, encoding)
    expected, _, _ = features.context(np.array(times), len(times), config)
    np.testing.assert_array_equal(tell(tf.constant(times, tf.int64)), expected)


@pytest.mark.parametrize("zone", ZONES)
def test_around_each_change_of_the_offset(zone):
    changes, offsets = time_context.offset_changes(zone)
    assert (
        len(offsets) == len(changes) + 1
        and (len(changes) > 0) == (zone != "UTC")
        and (np.diff(offsets) != 0).all()
    )
    times = np.concatenate(
        [changes + second for second in (-3601, -1, 0, 1, 3600)] + [[0, 1_785_258_000]]
    )
    config, tell = clock(zone, "categorical")
    np.testing.assert_array_equal(
        tell(tf.constant(times)), features.context(times, len(times), config)[0]
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(dataset, model, signatures).

    A hybrid whose days and moments say something, in a zone with summer time.
    """
    config = {
        "time_zone": "Europe/Vienna",
        "context": ("daytime", "weekend", "hour"),
        "terms": ("bias", "user_day_bias", "dot", "context_factors", "context"),
    }
    settings = make_config(model="hybrid", embedding_dim=4, **config)
    dataset, rows = make_dataset(), np.arange(60)
    times = 1_700_000_000 + np.random.RandomState(0).randint(0, 86_400 * 300, 60).astype(np.int64)
    context, names, default = features.context(times, 60, settings.data)
    dataset = replace(
        dataset,
        timestamp=times,
        context=context,
        context_names=names,
        default_context=default,
        time=settings.data,
    )
    tf.keras.utils.set_random_seed(0)
    model = parts.make_model(dataset.interactions.take(rows), settings)
    for weight in model.trainable_weights:
        weight.assign_add(
            tf.random.stateless_normal(weight.shape, [1, len(weight.path)], stddev=0.1)
        )
    folder = tmp_path_factory.mktemp("timed") / "export"
    export(serve(model, dataset, rows, **config), folder)
    return dataset, model, tf.saved_model.load(str(folder)).signatures


def score(signatures, dataset, rows, context, timestamp):
    user, product = (
        dataset.catalog.user_ids[dataset.interactions.user[rows]],
        dataset.catalog.product_ids[dataset.interactions.product[rows]],
    )
    times = {
        "context": tf.constant(context, tf.float32),
        "timestamp": tf.constant(timestamp, tf.int64),
    }
    return signatures["score"](user=tf.constant(user), product=tf.constant(product), **times)[
        "rating"
    ].numpy()


def predicted(model, dataset, rows, **columns):
    batch = batch_of(dataset.interactions.take(rows)) | columns
    return np.clip(
        model(batch).numpy(), dataset.interactions.rating.min(), dataset.interactions.rating.max()
    )


def test_rows_are_scored_with_their_times_as_they_are_evaluated(world):
    dataset, model, signatures = world
    rows, none = np.arange(60), np.zeros((0, dataset.interactions.context.shape[1]))
    expected = predicted(model, dataset, rows)
    timed = score(signatures, dataset, rows, none, dataset.interactions.timestamp)
    np.testing.assert_allclose(timed, expected, atol=1e-5)
    np.testing.assert_allclose(
        score(
            signatures, dataset, rows, dataset.interactions.context, dataset.interactions.timestamp
        ),
        expected,
        atol=1e-5,
    )
    default = tf.tile(dataset.catalog.default_context[None], [60, 1])
    timeless = predicted(model, dataset, rows, context=default, day=tf.fill([60], -1))
    for unknown in ([], np.zeros(60), [0]):
        np.testing.assert_allclose(
            score(signatures, dataset, rows, none, unknown), timeless, atol=1e-5
        )
    some = np.where(rows % 2, dataset.interactions.timestamp, 0)
    np.testing.assert_allclose(
        score(signatures, dataset, rows, none, some),
        np.where(rows % 2, expected, timeless),
        atol=1e-5,
    )
    given = predicted(
        model, dataset, rows, context=default
    )  # a context that is given holds; the day is the time's
    np.testing.assert_allclose(
        score(signatures, dataset, rows, default, dataset.interactions.timestamp), given, atol=1e-5
    )
    different = (
        np.abs(a - b).max() for a, b in itertools.combinations([expected, timeless, given], 2)
    )
    assert min(different) > 0.01


def test_lists_are_made_for_a_time(world):
    dataset, model, signatures = world
    users, time = np.array([0, 3, 5]), dataset.interactions.timestamp[:1]
    none, lists = (
        np.zeros((0, dataset.interactions.context.shape[1])),
        {"exclude": tf.zeros([0, 0], tf.int64), "allow": tf.zeros([0], tf.int64)},
    )
    context = np.repeat(dataset.interactions.context[:1], 3, axis=0)

    def ask(signature, context, timestamp, **more):
        times = {
            "context": tf.constant(context, tf.float32),
            "timestamp": tf.constant(timestamp, tf.int64),
        }
        return signatures[signature](k=tf.constant(9), **times, **lists, **more)

    mine = {
        "user": tf.constant(dataset.catalog.user_ids[users]),
        "exclude_seen": tf.constant(False),
    }
    answer = ask("recommend", none, time, **mine)
    day = np.repeat(time // 86_400, 3).astype(np.int32)
    scores = model.score_all(
        {"user": tf.constant(users), "context": tf.constant(context), "day": tf.constant(day)}
    ).numpy()
    order = np.argsort(-scores, axis=1)
    np.testing.assert_array_equal(answer["product"], dataset.catalog.product_ids[order])
    low, high = dataset.interactions.rating.min(), dataset.interactions.rating.max()
    np.testing.assert_allclose(
        answer["score"], np.clip(np.take_along_axis(scores, order, 1), low, high), atol=1e-5
    )
    likes = {
        "product": tf.constant(dataset.catalog.product_ids[None, :3]),
        "rating": tf.constant([[2.0, 3.0, 1.0]]),
    }
    timed, given, timeless = (
        ask("recommend_for_history", *times, **likes)["score"].numpy()
        for times in ((none, time), (context[:1], []), (none, []))
    )
    np.testing.assert_array_equal(timed, given)  # somebody new has no days here
    assert not np.array_equal(timed, timeless)
    with pytest.raises(tf.errors.InvalidArgumentError, match="timestamp: expected a row for each"):
        ask("recommend", none, np.repeat(time, 2), **mine)


def test_data_without_time_take_none():
    dataset = replace(make_dataset(), timestamp=None)
    rows = dataset.interactions.take(np.arange(40))
    model = MODELS["mf"].from_data(rows, embedding_dim=3)
    server = serve(model, dataset)
    user, product = (
        tf.constant(dataset.catalog.user_ids[:3]),
        tf.constant(dataset.catalog.product_ids[:3]),
    )
    answers = [
        server.score(user, product, tf.constant(NO_CONTEXT), time)["rating"]
        for time in (NO_TIME, tf.constant([1_700_000_000], tf.int64))
    ]
    np.testing.assert_array_equal(*answers)
