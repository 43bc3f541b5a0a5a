"""Wide features, kept by entries, against the same features as dense matrices."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import batch_of, make_dataset, make_split, replace
from tfrec.data.sparse import SparseFeatures
from tfrec.errors import UsageError
from tfrec.evaluation import evaluate
from tfrec.evaluation.evaluate import Evaluator
from tfrec.evaluation.evaluate import _blocks as slices
from tfrec.evaluation.settings import EvaluationSettings
from tfrec.layers import FeatureEmbedding, FeatureTable, features
from tfrec.models.base import Recommender
from tfrec.models.content import Content
from tfrec.models.demographic import Demographic
from tfrec.models.hybrid import TERMS, Hybrid
from tfrec.serving.export import ServingModule, export
from tfrec.training.trainer import Trainer

tables = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        np.random.default_rng(seed).integers(-2, 3, (7, 5)).astype(np.float32)
        * (np.random.default_rng(seed + 1).random((7, 5)) < 0.4)
    )
)
# NARROW and PADDING: a dense matrix, padded rows, rows of any length
FORMS = {"dense": (64, 2), "padded": (0, 100), "by entries": (0, 0)}
IDS = {
    "every": None,
    "one axis": tf.constant([6, 0, 0, 3]),
    "two axes": tf.constant([[1, 1], [2, 6], [0, 5]]),
    "none": tf.zeros([3, 0], tf.int32),
}


@settings(max_examples=30, deadline=None)
@given(tables)
def test_the_matrix_by_its_entries_is_the_dense_one(table):
    sparse = SparseFeatures.from_dense(table)
    np.testing.assert_array_equal(sparse.dense(), table)
    assert len(sparse.values) == np.count_nonzero(table) and sparse.shape == table.shape
    rows = np.array([6, 2, 2, 0])
    np.testing.assert_array_equal(sparse.take(rows).dense(), table[rows])
    length = np.linalg.norm(table, axis=1, keepdims=True)
    np.testing.assert_allclose(
        sparse.unit_rows().dense(), table / np.where(length, length, 1), rtol=1e-6
    )
    nothing = sparse.with_values(0 * sparse.values)
    np.testing.assert_array_equal(nothing.unit_rows().dense(), 0 * table)
    order = np.random.default_rng(0).permutation(len(sparse.values))
    entries = tuple(of[order] for of in (sparse.rows, sparse.columns, sparse.values))
    twice = tuple(np.concatenate([of, of]) for of in entries)
    for given_entries, times in ((entries, 1), (twice, 2)):
        other = SparseFeatures.of_entries(given_entries, 7, sparse.names)
        np.testing.assert_array_equal(other.dense(), times * table)
    assert SparseFeatures.from_dense(table).fingerprint == sparse.fingerprint
    assert SparseFeatures.from_dense(table + 1).fingerprint != sparse.fingerprint


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS)
@settings(max_examples=5, deadline=None)
@given(table=tables)
def test_products_with_a_table_equal_those_of_numpy(table, ids, form):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "NARROW", form[0])
        patch.setattr(features, "PADDING", form[1])
        made = FeatureTable(SparseFeatures.from_dense(table), "product")
    rows = table if ids is None else table[ids.numpy()]
    random = np.random.default_rng(0)
    kernel, x = random.normal(size=(5, 3)), random.normal(size=(3, 5))
    np.testing.assert_array_equal(made(ids).dense(), rows)
    embed = FeatureEmbedding(made, {"a": 1, "b": 2}, {"b": 0.5}, biased="b")
    assert (
        0.05 < np.abs(embed.kernel[:, 1:]).max() < 0.5 and np.abs(embed.kernel[:, 0]).max() < 0.05
    )
    embed.kernel.assign(kernel)
    embed.bias.assign([2.0, 3.0])
    with tf.GradientTape() as tape:
        found = tf.concat(list(embed(ids).values()), -1)
        loss = tf.reduce_sum(tf.sin(found))
    np.testing.assert_allclose(found, rows @ kernel + [0, 2, 3], rtol=1e-5, atol=1e-5)
    gradient = tf.convert_to_tensor(tape.gradient(loss, embed.kernel.value))
    flat, outer = rows.reshape(-1, 5), np.cos(found.numpy()).reshape(-1, 3)
    np.testing.assert_allclose(gradient, flat.T @ outer, rtol=1e-4, atol=1e-4)
    expected = np.einsum("bf,...nf->bn" if rows.ndim == 2 else "bf,bnf->bn", x, rows)
    of_rows = made(ids).dot(tf.constant(x, tf.float32))
    np.testing.assert_allclose(of_rows, expected, rtol=1e-5, atol=1e-5)
    if ids is None:
        weights = tf.constant(random.normal(size=(2, 7)), tf.float32)
        np.testing.assert_allclose(made(None).weighted_sum(weights), weights @ table, atol=1e-5)


def world():
    """Rows of users and products with features, some of them without rows."""
    dataset = make_dataset(num_users=14, num_products=11, rows=70, user_features=4)
    rows = dataset.interactions
    known = np.flatnonzero((rows.user != 3) & (rows.product != 4))
    return make_split(dataset, known, None, np.setdiff1d(np.arange(70), known))


MODELS = (
    (Hybrid, "rating", {"embedding_dim": 3}),
    (Hybrid, "ranking", {"embedding_dim": 3, "terms": TERMS}),
    (Content, "ranking", {}),
    (Demographic, "rating", {}),
    (Demographic, "ranking", {}),
)


@pytest.mark.parametrize(("kind", "task", "chosen"), MODELS)
def test_models_score_and_serve_alike_whether_features_are_sparse_or_dense(
    kind, task, chosen, monkeypatch
):
    split, answers = world(), []
    catalog = split.catalog
    batch = batch_of(split.test)
    batch.pop("user_features")
    for narrow, padding in FORMS.values():
        monkeypatch.setattr(features, "NARROW", narrow)
        monkeypatch.setattr(features, "PADDING", padding)
        model = kind.from_data(split.train, task, **chosen)
        if model.closed_form:
            model.fit_closed_form(model.data)
        else:
            for path, weight in sorted(model.named_weights().items()):
                if not path.startswith(("features", "user_features")):
                    weight.assign(np.random.default_rng(len(path)).normal(size=weight.shape))
            model.finalize()
        several = tf.tile(tf.range(11)[None, ::2], [len(split.test), 1])
        served = ServingModule(model, split)
        context, no_time = tf.zeros([0, 2]), tf.zeros([0], tf.int64)
        none = tf.zeros([0, 0], tf.int64)
        users = tf.constant(catalog.user_ids)
        recommended = served.recommend(
            users, 4, context, no_time, none, tf.zeros([0], tf.int64), True
        )
        answers.append(
            [
                model(batch),
                model.score_all(batch),
                model.score_candidates(batch, several),
                model.score_candidates(batch, several[0]),
                recommended["score"],
                recommended["product"],
                served.similar(tf.constant(catalog.product_ids), 3)["score"],
            ]
        )
    for one, *others in zip(*answers):
        for other in others:
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", (Content, Demographic))
def test_a_sparse_closed_form_is_of_the_rows_that_it_was_made_for(kind, monkeypatch):
    monkeypatch.setattr(features, "NARROW", 0)
    split = world()
    model = kind.from_data(split.train)
    with pytest.raises(UsageError, match=r"^fit_closed_form: these are not the rows"):
        model.fit_closed_form(split.test)


@pytest.mark.parametrize("padding", (100, 0))
def test_sums_of_many_features_are_exact_in_mixed_precision(padding, monkeypatch):
    monkeypatch.setattr(features, "PADDING", padding)
    made = FeatureTable(SparseFeatures.from_dense(np.ones((2, 3000))), "product")
    kernel = tf.Variable(np.random.default_rng(0).normal(size=(3000, 2)).astype(np.float32))
    found = made(tf.constant([1])).times(kernel, tf.bfloat16)
    np.testing.assert_allclose(tf.cast(found, tf.float32)[0], kernel.numpy().sum(0), rtol=0.01)


class Own(Recommender):
    """Reads a table by itself and through an embedding."""

    def __init__(self, train, settings):
        super().__init__(name="own")
        self.table = FeatureTable(train.catalog.features, "product")
        self.embed = FeatureEmbedding(self.table, 1)
        self.bias = self.add_weight(shape=(self.table.width, 1), name="bias", initializer="ones")

    def score(self, batch, products, training=False):
        both = self.embed(products) + self.table(products).times(self.bias.value)
        return both[..., 0] + 0.0 * tf.cast(batch["user"][:, None], tf.float32)


@pytest.mark.parametrize("narrow", (64, 0))
def test_an_export_holds_what_a_model_reads_in_its_own_way(narrow, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "NARROW", narrow)
    split = world()
    model = Own.from_data(split.train, "ranking")
    export(ServingModule(model, split), tmp_path / "export")
    score = tf.saved_model.load(str(tmp_path / "export")).signatures["score"]
    catalog, rows = split.catalog, split.train
    users, products = catalog.user_ids[rows.user], catalog.product_ids[rows.product]
    times = {"context": tf.zeros([0, 2]), "timestamp": tf.zeros([0], tf.int64)}
    answer = score(user=tf.constant(users), product=tf.constant(products), **times)["rating"]
    np.testing.assert_allclose(answer, model(batch_of(rows)), rtol=1e-5)


@pytest.mark.parametrize("kind", (Content, Demographic))
def test_rows_are_scored_in_blocks_of_what_a_model_makes_of_each(kind, monkeypatch):
    monkeypatch.setattr(features, "NARROW", 0)
    monkeypatch.setattr(evaluate, "USERS_AT_LEAST", 2)
    split = world()
    model = kind.from_data(split.train, "ranking")
    model.fit_closed_form(model.data)
    assert model.floats_per_row > 1
    evaluator, found, blocks = Evaluator(model, split, EvaluationSettings()), [], []
    for floats in (10**9, 5 * model.floats_per_row):
        monkeypatch.setattr(evaluate, "FLOATS_AT_ONCE", floats)
        monkeypatch.setattr(
            evaluate, "_blocks", lambda count, size: blocks.append(size) or slices(count, size)
        )
        found.append(evaluator.scores())
    assert blocks[-1] == 5 and blocks[0] > 5
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_training_says_that_xla_compiles_no_rows_of_any_length(monkeypatch):
    monkeypatch.setattr(features, "NARROW", 2)
    monkeypatch.setattr(features, "PADDING", 0)
    split = world()
    model = Hybrid.from_data(split.train)
    with pytest.raises(
        UsageError, match=r"^jit_compile: XLA compiles no features of which each product has"
    ):
        Trainer(model, jit_compile=True)


def test_a_dense_table_that_would_be_huge_is_refused_for_a_model_that_asks_for_it():
    split = world()
    many = SparseFeatures(np.zeros(12, int), np.zeros(0, int), np.zeros(0), ("x",) * 2**25)
    rows = replace(make_dataset(num_products=11), features=many).interactions
    with pytest.raises(UsageError, match=r'^batch\["features"\]: 11 rows x 33,554,432 features'):
        next(iter(rows.batches(8)))
    assert "features" not in next(iter(rows.batches(8, columns=())))[0]
    assert len(split.train)
