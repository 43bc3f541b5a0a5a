import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, replace
from tfrec.data import pipeline
from tfrec.models.hybrid import Hybrid
from tfrec.models.popularity import Popularity
from tfrec.serving.export import Server, export

ROWS = np.arange(40)


def named(dataset):
    """The same data with string ids, one of them not ASCII."""
    users, products = (np.array([f"{prefix}{i}" for i in ids]) for prefix, ids in (("ü", dataset.user_ids), ("p ", dataset.product_ids)))
    return replace(dataset, user_ids=users, product_ids=products)


@pytest.fixture(params=[lambda dataset: dataset, named], ids=["int", "string"])
def served(request, tmp_path):
    """(dataset, model, fallback, the loaded signature)."""
    dataset = request.param(make_dataset(user_features=2)).with_scaling("global_minmax", ROWS)
    tf.keras.utils.set_random_seed(0)
    model = Hybrid(dataset.num_users, dataset.features, num_context=2, num_user_features=2, dim=4, mean=0.4)
    for weight in model.trainable_weights:
        weight.assign_add(tf.random.stateless_normal(weight.shape, [1, len(weight.path)], stddev=0.03))
    fallback = Popularity(dataset.num_users, dataset.num_products)
    fallback.adapt({"user": dataset.user[ROWS], "product": dataset.product[ROWS], "y": dataset.rating[ROWS]})
    export(Server(model, fallback, dataset, ROWS, "rating"), tmp_path / "export")
    return dataset, model, fallback, tf.saved_model.load(str(tmp_path / "export")).signatures["score"]


def ask(score, user, product, context):
    return score(user=tf.constant(user), product=tf.constant(product), context=tf.constant(context, tf.float32))["rating"].numpy()


def test_answers_like_the_model_in_rating_units(served):
    dataset, model, _, score = served
    batch = pipeline.gather(pipeline.columns(dataset, ROWS), tf.range(len(ROWS)))
    user, product = dataset.user[ROWS], dataset.product[ROWS]
    answer = ask(score, dataset.user_ids[user], dataset.product_ids[product], dataset.context[ROWS])
    seen = dataset.rating[ROWS]
    np.testing.assert_allclose(answer, np.clip(dataset.unscale(model(batch).numpy(), product), seen.min(), seen.max()), rtol=1e-6)
    assert len(np.unique(answer)) > 10


def test_no_context_means_the_default_one(served):
    dataset, _, _, score = served
    user, product = dataset.user_ids[:5], dataset.product_ids[:5]
    without, with_default = ask(score, user, product, np.zeros((0, 2))), ask(score, user, product, np.tile(dataset.default_context, (5, 1)))
    np.testing.assert_array_equal(without, with_default)
    assert not np.array_equal(without, ask(score, user, product, np.ones((5, 2))))


def test_unknown_ids_are_scored_by_what_is_known_of_the_other(served):
    dataset, _, fallback, score = served
    stranger = {"i": 987654, "U": "nobody"}[dataset.user_ids.dtype.kind]
    user, product = dataset.user_ids[3], dataset.product_ids[2]
    users, products = np.array([stranger, user, stranger]), np.array([product, stranger, stranger])
    answer = ask(score, users, products, np.zeros((0, 2)))
    mean = fallback.biases.mean.numpy()
    expected = [mean + fallback.biases.product.table.numpy()[2, 0], mean + fallback.biases.user.table.numpy()[3, 0], mean]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_a_user_without_training_rows_is_as_unknown_as_a_stranger(tmp_path):
    dataset = make_dataset()
    rows = np.flatnonzero(dataset.user != 3)
    model = Hybrid(dataset.num_users, dataset.features, num_context=2, dim=4, mean=3.0)
    fallback = Popularity(dataset.num_users, dataset.num_products)
    fallback.adapt({"user": dataset.user[rows], "product": dataset.product[rows], "y": dataset.rating[rows]})
    server = Server(model, fallback, dataset, rows, "rating")
    product = dataset.product_ids[[1, 1]]
    untrained, stranger = ask(server.score, np.array([dataset.user_ids[3], 987654]), product, np.zeros((0, 2)))
    assert untrained == stranger
    trained = ask(server.score, dataset.user_ids[[2]], product[:1], np.zeros((0, 2)))
    assert trained != stranger


def test_an_empty_batch_is_answered(served):
    dataset, _, _, score = served
    assert ask(score, dataset.user_ids[:0], dataset.product_ids[:0], np.zeros((0, 2))).shape == (0,)


def test_export_replaces_an_older_one_and_leaves_no_draft(served, tmp_path):
    dataset, model, fallback, _ = served
    (tmp_path / "export" / "old").write_text("")
    export(Server(model, fallback, dataset, ROWS, "ranking"), tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert not (tmp_path / "export" / "old").exists()
