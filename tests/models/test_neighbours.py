import numpy as np
import pytest
import tensorflow as tf

from tests import conftest
from tfrec.models import neighbours
from tfrec.models.neighbours import ItemKNN, UserKNN
from tfrec.models.popularity import Popularity

BOTH = pytest.mark.parametrize("of", ["item", "user"])
TASKS = pytest.mark.parametrize("task", ["rating", "ranking"])
EMPTY = (3, 11)  # users without training rows


def make_dataset():
    """Dense enough that no two similarities of the rating task are equal but for rounding."""
    return conftest.make_dataset(rows=90)


def examples(dataset):
    return dataset.interactions.take(~np.isin(dataset.interactions.user, EMPTY))


def fitted(of, task, data, k=4):
    part = ItemKNN if of == "item" else UserKNN
    model = part.from_data(data, task, neighbours=k, shrinkage=2.0)
    model.fit_closed_form(model.data)
    return model


def oracle(of, task, data, shape, k, shrinkage):
    """The equations, pair by pair: scores [U, P]."""
    num_users, num_products = shape
    base = np.zeros(shape)
    if task == "rating":
        bias = Popularity.from_data(data)
        bias.fit_closed_form(data)
        base = bias.score_all({"user": tf.range(num_users)}).numpy().astype(float)
    d = {
        (u, p): (y - base[u, p] if task == "rating" else 1.0)
        for u, p, y in zip(data.user, data.product, data.rating)
    }
    rows = {}
    for (u, p), value in d.items():
        a, x = (p, u) if of == "item" else (u, p)
        rows.setdefault(a, {})[x] = value

    def similarity(a, c):
        one, other = rows.get(a, {}), rows.get(c, {})
        shared = one.keys() & other.keys()
        if not shared:
            return 0.0
        over = (shared, shared) if task == "rating" else (one, other)
        norm = np.sqrt(sum(one[x] ** 2 for x in over[0]) * sum(other[x] ** 2 for x in over[1]))
        return (
            len(shared) / (len(shared) + shrinkage) * sum(one[x] * other[x] for x in shared) / norm
        )

    size = num_products if of == "item" else num_users
    nearest = {}
    for a in range(size):
        found = sorted(((similarity(a, c), -c) for c in range(size) if c != a), reverse=True)[
            :k
        ]  # of equals the first
        nearest[a] = [(s, -c) for s, c in found if s > 0]
    scores = base.copy()
    for u in range(num_users):
        for p in range(num_products):
            pairs = [
                (s, (u, c) if of == "item" else (c, p))
                for s, c in nearest[p if of == "item" else u]
            ]
            total = sum(s * d[pair] for s, pair in pairs if pair in d)
            weight = sum(s for s, pair in pairs if pair in d)
            scores[u, p] += total / (0.5 + weight) if task == "rating" else total
    return scores


@BOTH
@TASKS
@pytest.mark.parametrize("k", [1, 4, 100])
def test_equals_its_equations(of, task, k):
    dataset = make_dataset()
    data, shape = examples(dataset), (dataset.catalog.num_users, dataset.catalog.num_products)
    scores = fitted(of, task, data, k).score_all({"user": tf.range(shape[0])}).numpy()
    np.testing.assert_allclose(scores, oracle(of, task, data, shape, k, 2.0), rtol=1e-4, atol=1e-5)


@BOTH
@TASKS
@pytest.mark.parametrize("floats", [1, 37, 10**7])
def test_any_number_of_blocks_gives_the_same(of, task, floats, monkeypatch):
    dataset = make_dataset()
    data, shape = examples(dataset), (dataset.catalog.num_users, dataset.catalog.num_products)
    users, products = tf.range(shape[0]), tf.tile(tf.range(shape[1])[None], [shape[0], 1])
    expected = oracle(of, task, data, shape, 4, 2.0)
    monkeypatch.setattr(neighbours, "FLOATS_AT_ONCE", floats)
    model = fitted(of, task, data)
    np.testing.assert_allclose(
        model.score_candidates({"user": users}, products), expected, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        model.score_candidates({"user": users}, tf.constant([5, 2])),
        expected[:, [5, 2]],
        rtol=1e-4,
        atol=1e-5,
    )
    nobody = model.score_candidates({"user": users[:0]}, products[:0])
    assert nobody.shape == (0, shape[1])


@BOTH
def test_inside_a_graph_with_open_shapes(of):
    dataset = make_dataset()
    data = examples(dataset)
    model = fitted(of, "rating", data)
    spec = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
    graph = tf.function(
        lambda user, products: model.score_candidates({"user": user}, products),
        input_signature=spec,
    )
    everything = model.score_all({"user": tf.constant([7, 3])})
    np.testing.assert_allclose(
        graph(tf.constant([7, 3]), tf.constant([[1, 8], [0, 2]])),
        [[everything[0, 1], everything[0, 8]], [everything[1, 0], everything[1, 2]]],
        rtol=1e-5,
    )


@BOTH
def test_users_without_rows_get_the_baseline(of):
    dataset = make_dataset()
    data, shape = examples(dataset), (dataset.catalog.num_users, dataset.catalog.num_products)
    model, bias = fitted(of, "rating", data), Popularity.from_data(data)
    bias.fit_closed_form(data)
    batch = {"user": tf.constant(EMPTY)}
    np.testing.assert_array_equal(model.score_all(batch), bias.score_all(batch))
    np.testing.assert_array_equal(
        fitted(of, "ranking", data).score_all(batch), np.zeros((2, shape[1]))
    )


@BOTH
@TASKS
def test_a_new_user_is_scored_as_one_who_was_there(of, task):
    """User 5's rows given to a model that never saw them, its biases and (for products)
    similarities those of one that did.
    """
    dataset = make_dataset()
    data, shape = examples(dataset), (dataset.catalog.num_users, dataset.catalog.num_products)
    mine = data.user == 5
    whole = fitted(of, task, data)
    without = fitted(of, task, data.take(~mine))
    keys, values = whole.keys.numpy()[: len(mine)], whole.values.numpy()[: len(mine)]
    others = values[keys // shape[1] != 5]
    without.values.assign(others)
    if task == "rating":
        for one, other in zip(without.baseline.weights, whole.baseline.weights):
            one.assign(other)
    if of == "item":
        without.nearest.assign(whole.nearest)
        without.similarity.assign(whole.similarity)
    products = np.pad(data.product[mine], (0, 2))[None]  # padded
    y, weight = (
        np.pad(part, (0, 2))[None].astype(np.float32)
        for part in (data.rating[mine], np.ones(mine.sum()))
    )
    expected = whole.score_all({"user": tf.constant([5])})
    np.testing.assert_allclose(
        without.fold_in_scores(products, y, weight), expected, rtol=1e-4, atol=1e-5
    )


@BOTH
def test_a_repeated_row_counts_once_with_its_mean(of):
    data = conftest.rows_of([0, 0, 1, 1, 0], [0, 1, 0, 1, 0], [1, 2, 4, 3, 3], (2, 2))
    model = fitted(of, "ranking", data)
    assert np.max(model.similarity) == pytest.approx(2 / (2 + 2.0))  # two shared entries, cosine 1
    model = fitted(of, "rating", data)
    base = model.baseline.score_all({"user": tf.range(2)}).numpy()
    np.testing.assert_allclose(
        model.values[:4],
        [2 - base[0, 0], 2 - base[0, 1], 4 - base[1, 0], 3 - base[1, 1]],
        rtol=1e-5,
    )


@BOTH
def test_memory_is_bounded(of, monkeypatch):
    """No block of similarities or of neighbours is larger than FLOATS_AT_ONCE."""
    data, sizes = examples(make_dataset()), []
    monkeypatch.setattr(neighbours, "FLOATS_AT_ONCE", 50)
    for name in ("scatter_nd", "transpose"):
        original = getattr(tf, name)
        monkeypatch.setattr(
            tf,
            name,
            lambda *a, original=original: (
                sizes.append(tf.size(result := original(*a)).numpy()) or result
            ),
        )
    model = fitted(of, "rating", data)
    assert max(sizes) <= 50
    pairs = model._pairs
    monkeypatch.setattr(
        model,
        "_pairs",
        lambda user, products: sizes.append(tf.size(products).numpy() * 4) or pairs(user, products),
    )
    model.score_candidates({"user": tf.zeros(100, tf.int32)}, tf.zeros((100, 3), tf.int32))
    assert max(sizes) <= 50


def test_sixty_thousand_products_fit():
    """Dense similarities would take 14 GB."""
    random, shape, k = np.random.RandomState(0), (500, 60_000), 20
    pairs = np.unique(
        random.randint(0, shape[0], 60_000) * shape[1] + random.zipf(1.3, 60_000) % shape[1]
    )
    rating = random.randint(1, 6, len(pairs))
    data = conftest.rows_of(pairs // shape[1], pairs % shape[1], rating, shape)
    model = fitted("item", "ranking", data, k)
    assert model.nearest.shape == (60_000, k)
    assert np.isfinite(model.score_all({"user": tf.range(3)})).all()
