import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import (
    batch_of,
    make_dataset,
    make_split,
    prepared_loss,
    replace,
    set_features,
    some_config,
    sparse,
)
from tfrec.data import targets
from tfrec.evaluation import baselines
from tfrec.experiments import parts
from tfrec.models.demographic import Demographic
from tfrec.models.hybrid import TERMS, Hybrid
from tfrec.models.mf import MatrixFactorization
from tfrec.models.output import Output
from tfrec.models.popularity import Popularity
from tfrec.serving.export import ServingModule, export
from tfrec.serving.fold_in import FoldIn

ROWS = np.arange(40)
NO_CONTEXT, NO_TIME = np.zeros((0, 2), np.float32), tf.zeros([0], tf.int64)


def named(dataset):
    """The same data with string ids, not all of them ASCII."""
    users, products = (
        np.array([f"{prefix}{i}" for i in ids])
        for prefix, ids in (("ü", dataset.catalog.user_ids), ("p ", dataset.catalog.product_ids))
    )
    return replace(dataset, user_ids=users, product_ids=products)


def baselines_of(dataset, rows):
    """The bias model on some rows."""
    return baselines.fit(dataset.interactions.take(rows))


def serve(model, dataset, rows=ROWS, task="rating", scaling="none", **more):
    settings = {"task": task, "loss": "mse" if task == "rating" else "sigmoid", "l2": 0.1}
    settings |= {"target_scaling": scaling} if task == "rating" else {}
    split, config = make_split(dataset, rows), some_config(**(settings | more))
    assert model.task == task
    if not model.closed_form:
        loss = prepared_loss(config, split.train.for_task(task))
        model.output = Output(loss, split.train, config.l2)
    return ServingModule(model, split)


def in_ratings(dataset, scores, product):
    """Scores of the model of `served` in rating units."""
    scaling = targets.fit("global_minmax", make_split(dataset, ROWS).train.stats)
    return scaling.to_ratings(scores, product)


@pytest.fixture(params=[lambda dataset: dataset, named], ids=["int", "string"], scope="module")
def served(request, tmp_path_factory):
    """(dataset, model, server, the signatures of its SavedModel)."""
    dataset = request.param(make_dataset(user_features=2))
    tf.keras.utils.set_random_seed(0)
    model = Hybrid.from_data(dataset.interactions, embedding_dim=4)
    for number, weight in enumerate(model.trainable_weights):
        weight.assign_add(tf.random.stateless_normal(weight.shape, [1, number], stddev=0.03))
    scores = model(batch_of(dataset.interactions))
    model.mean.assign_add(0.5 - tf.reduce_mean(scores))  # few are clipped
    server = serve(model, dataset, scaling="global_minmax")
    folder = tmp_path_factory.mktemp("served") / "export"
    export(server, folder)
    return dataset, model, server, tf.saved_model.load(str(folder)).signatures


def ask(score, user, product, context):
    times = {"context": tf.constant(context, tf.float32), "timestamp": NO_TIME}
    return score(user=tf.constant(user), product=tf.constant(product), **times)["rating"].numpy()


def stranger(ids):
    """An id that is not among them."""
    return {"i": 987654, "U": "nobody"}[ids.dtype.kind]


def text(values):
    """Ids of either kind as text."""
    return [
        value.decode() if isinstance(value, bytes) else str(value)
        for value in np.asarray(values).ravel()
    ]


def recommend(
    signatures, dataset, users, k, exclude=None, allow=None, exclude_seen=True, context=NO_CONTEXT
):
    ids = dataset.catalog.product_ids
    inputs = {
        "exclude": ids[:0][None] if exclude is None else exclude,
        "allow": ids[:0] if allow is None else allow,
    }
    answer = signatures["recommend"](
        user=tf.constant(users),
        k=tf.constant(k),
        context=tf.constant(context),
        timestamp=NO_TIME,
        exclude_seen=tf.constant(exclude_seen),
        **{name: tf.constant(np.asarray(values)) for name, values in inputs.items()},
    )
    return {name: values.numpy() for name, values in answer.items()}


def test_answers_like_the_model_in_rating_units(served):
    dataset, model, _, signatures = served
    batch = batch_of(dataset.interactions.take(ROWS))
    user, product = dataset.interactions.user[ROWS], dataset.interactions.product[ROWS]
    answer = ask(
        signatures["score"],
        dataset.catalog.user_ids[user],
        dataset.catalog.product_ids[product],
        dataset.interactions.context[ROWS],
    )
    seen = dataset.interactions.rating[ROWS]
    np.testing.assert_allclose(
        answer,
        np.clip(in_ratings(dataset, model(batch).numpy(), product), seen.min(), seen.max()),
        rtol=1e-5,
    )
    assert len(np.unique(answer)) > 10


def test_no_context_means_the_default_one(served):
    dataset, _, _, signatures = served
    user, product = dataset.catalog.user_ids[:5], dataset.catalog.product_ids[:5]
    answers = [
        ask(signatures["score"], user, product, context)
        for context in (NO_CONTEXT, np.zeros((5, 2)), np.ones((5, 2)))
    ]
    np.testing.assert_array_equal(answers[0], answers[1])
    assert not np.array_equal(answers[0], answers[2])


def test_unknown_ids_are_scored_by_what_is_known_of_the_other(served):
    dataset, _, _, signatures = served
    fallback = baselines_of(dataset, ROWS)["bias"]
    nobody, nothing = stranger(dataset.catalog.user_ids), stranger(dataset.catalog.product_ids)
    users, products = (
        np.array([nobody, dataset.catalog.user_ids[3], nobody]),
        np.array([dataset.catalog.product_ids[2], nothing, nothing]),
    )
    answer = ask(signatures["score"], users, products, NO_CONTEXT)
    mean, (user, product) = fallback.mean.numpy(), fallback.new.numpy()
    expected = [
        mean + user + fallback.products.table.numpy()[2, 0],
        mean + fallback.users.table.numpy()[3, 0] + product,
        mean + user + product,
    ]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_a_user_without_training_rows_is_as_unknown_as_a_stranger():
    dataset = make_dataset()
    rows = np.flatnonzero(dataset.interactions.user != 3)
    server = serve(
        Hybrid.from_data(dataset.interactions, embedding_dim=4),
        dataset,
        rows,
    )
    product = dataset.catalog.product_ids[[1, 1]]
    untrained, nobody = ask(
        server.score, np.array([dataset.catalog.user_ids[3], 987654]), product, NO_CONTEXT
    )
    assert untrained == nobody
    assert ask(server.score, dataset.catalog.user_ids[[2]], product[:1], NO_CONTEXT) != nobody


def knowing(task="rating"):
    """A server of a model without attributes, on data that have two.

    User 3 and product 4 have no training rows.
    """
    dataset = make_dataset(user_features=2)
    rows = np.flatnonzero((dataset.interactions.user != 3) & (dataset.interactions.product != 4))
    model = MatrixFactorization.from_data(dataset.interactions, task, embedding_dim=3)
    demographic = Demographic.from_data(dataset.interactions.take(rows), task)
    demographic.fit_closed_form(demographic.data)
    return dataset, rows, serve(model, dataset, rows, task), demographic


def test_a_new_user_with_attributes_is_judged_by_people_like_him():
    dataset, rows, server, demographic = knowing()
    users, products = (
        np.array([dataset.catalog.user_ids[3], 987654]),
        dataset.catalog.product_ids[[1, 1]],
    )
    answer = server.score(
        tf.constant(users), tf.constant(products), tf.constant(NO_CONTEXT), NO_TIME
    )
    batch = {"user_features": tf.constant(dataset.catalog.user_features.dense()[[3]])}
    assert text(answer["source"]) == ["demographic", "popularity"]
    assert float(answer["rating"][0]) == pytest.approx(
        float(demographic.score_all(batch)[0, 1]), rel=1e-5
    )
    shares = Demographic.from_data(dataset.interactions.take(rows), "ranking")
    shares.fit_closed_form(shares.data)
    expected = np.sort(shares.score_all(batch).numpy()[0])[::-1]
    lists = {"exclude": tf.zeros([0, 0], tf.int64), "allow": tf.zeros([0], tf.int64)}
    users = np.append(users, dataset.catalog.user_ids[0])
    answer = server.recommend(
        tf.constant(users),
        k=tf.constant(5),
        context=tf.constant(NO_CONTEXT),
        timestamp=NO_TIME,
        exclude_seen=True,
        **lists,
    )
    assert text(answer["source"]) == ["demographic", "popularity", "model"]
    np.testing.assert_allclose(answer["score"][0], expected[:5], rtol=1e-5)
    has_attribute = [
        [f"g{at}" for at in np.flatnonzero(dataset.catalog.user_features.dense()[3])] + [""],
        ["nothing", ""],
    ]
    has_attribute[0] = (has_attribute[0] + [""] * 2)[:2]
    answer = server.serving["recommend_by_attributes"](
        tf.constant(has_attribute), k=tf.constant(5), **lists
    )
    assert text(answer["source"]) == ["demographic", "popularity"]
    np.testing.assert_allclose(answer["score"][0], expected[:5], rtol=1e-5)


def test_a_model_that_reads_attributes_judges_new_users_itself():
    dataset = make_dataset(user_features=2)
    set_features(dataset, 3, [1, 0])
    rows = np.flatnonzero(dataset.interactions.user != 3)
    model = Hybrid.from_data(dataset.interactions, embedding_dim=4)
    server = serve(model, dataset, rows)
    answer = server.score(
        tf.constant(dataset.catalog.user_ids[[3]]),
        tf.constant(dataset.catalog.product_ids[[1]]),
        tf.constant(NO_CONTEXT),
        NO_TIME,
    )
    batch = {
        "user": tf.constant([3]),
        "context": tf.zeros([1, 2]),
        "user_features": tf.constant(dataset.catalog.user_features.dense()[[3]]),
    }
    assert text(answer["source"]) == ["demographic"]
    assert float(answer["rating"][0]) == pytest.approx(
        float(model.score_all(batch)[0, 1]), rel=1e-5
    )


def test_who_says_nothing_of_himself_gets_what_is_popular():
    """Numbers make no groups, nor does an attribute that nobody has."""
    dataset = make_dataset(user_features=3)
    age = np.linspace(-1, 1, 12)
    set_features(dataset, slice(None), np.stack([age, 0 * age, np.arange(12) % 2], axis=1))
    set_features(dataset, 3, [0.5, 0, 0])
    rows = np.flatnonzero(dataset.interactions.user != 3)
    model = MatrixFactorization.from_data(dataset.interactions, embedding_dim=3)
    of_users = dataset.catalog.user_features.dense()
    for features in (of_users, of_users[:, :2]):
        server = serve(model, replace(dataset, user_features=features), rows)
        answer = server.score(
            tf.constant(dataset.catalog.user_ids[[3]]),
            tf.constant(dataset.catalog.product_ids[[1]]),
            tf.constant(NO_CONTEXT),
            NO_TIME,
        )
        assert text(answer["source"]) == ["popularity"]
        assert ("recommend_by_attributes" in server.serving) == (features.shape[1] == 3)


def test_a_missing_attribute_says_nothing_of_a_user():
    plans = sparse(np.eye(3)[np.arange(12) % 3], ("plan=(missing)", "plan=free", "plan=paid"))
    dataset = replace(make_dataset(), user_features=plans)
    rows = np.flatnonzero((dataset.interactions.user != 3) & (dataset.interactions.user != 4))
    users, product = (
        tf.constant(dataset.catalog.user_ids[[3, 4]]),
        tf.constant(dataset.catalog.product_ids[[1, 1]]),
    )
    for model in (
        MatrixFactorization.from_data(dataset.interactions, embedding_dim=3),
        Hybrid.from_data(dataset.interactions, embedding_dim=4),
    ):
        server = serve(model, dataset, rows)
        assert text(server.score(users, product, tf.constant(NO_CONTEXT), NO_TIME)["source"]) == [
            "popularity",
            "demographic",
        ]
        lists = tf.zeros([0, 0], tf.int64), tf.zeros([0], tf.int64)
        answer = server.recommend(
            users, tf.constant(3), tf.constant(NO_CONTEXT), NO_TIME, *lists, tf.constant(False)
        )
        assert text(answer["source"]) == ["popularity", "demographic"]
        answer = server.serving["recommend_by_attributes"](
            tf.constant([["plan=(missing)"], ["plan=paid"]]), tf.constant(3), *lists
        )
        assert text(answer["source"]) == ["popularity", "demographic"]


@pytest.mark.parametrize("term", TERMS)
def test_a_hybrid_of_any_single_term_is_served(term):
    dataset = make_dataset()
    rows = dataset.interactions.take(ROWS)
    model = Hybrid.from_data(rows, embedding_dim=4, terms=(term,))
    model.finalize()
    server = serve(model, dataset)
    assert np.isfinite(fold(server, dataset, np.array([1, 2]), k=3)["score"]).all()


@pytest.mark.parametrize(("task", "power"), [("rating", 0.0), ("ranking", 2.0)])
def test_a_rating_off_the_scale_counts_as_its_end(task, power):
    dataset = make_dataset()
    model = MatrixFactorization.from_data(dataset.interactions, task, embedding_dim=3)
    model.products.table.assign(tf.random.stateless_normal([9, 4], [0, 0]))
    server = serve(model, dataset, task=task, confidence_power=power)
    one, other = (
        fold(server, dataset, np.array([1, 2]), rating, k=3)["score"]
        for rating in ([5.0, 0.5], [100.0, -7.0])
    )
    np.testing.assert_array_equal(one, other)


def test_for_ranking_what_is_said_of_new_users_and_products_are_log_odds_too():
    dataset, rows, server, demographic = knowing("ranking")
    users = np.array([dataset.catalog.user_ids[3], 987654, 987654])
    answer = server.score(
        tf.constant(users),
        tf.constant([*dataset.catalog.product_ids[[1, 1]], 55], tf.int64),
        tf.constant(NO_CONTEXT),
        NO_TIME,
    )
    assert text(answer["source"]) == ["demographic", "popularity", "popularity"]
    count, users = np.bincount(dataset.interactions.product[rows])[1], 11
    share = float(
        demographic.score_all(
            {"user_features": tf.constant(dataset.catalog.user_features.dense()[[3]])}
        )[0, 1]
    )
    odds = [(n + 0.5) / (users - n + 0.5) for n in (share * users, count, 0)]
    np.testing.assert_allclose(answer["rating"], np.log(odds), rtol=1e-5)


def test_a_new_product_is_judged_by_its_features_where_the_model_reads_them():
    dataset, rows = make_dataset(), np.flatnonzero(make_dataset().interactions.product != 4)
    user, product = (
        tf.constant(dataset.catalog.user_ids[:1]),
        tf.constant(dataset.catalog.product_ids[[4]]),
    )
    sources = {}
    for model in (
        Hybrid.from_data(dataset.interactions, embedding_dim=4),
        MatrixFactorization.from_data(dataset.interactions, embedding_dim=3),
    ):
        answer = serve(model, dataset, rows).score(user, product, tf.constant(NO_CONTEXT), NO_TIME)
        sources[model.name] = text(answer["source"])[0], float(answer["rating"][0])
        batch = {"user": tf.constant([0]), "context": tf.zeros([1, 2])}
        by_model = np.clip(
            float(model.score_all(batch)[0, 4]),
            dataset.interactions.rating[rows].min(),
            dataset.interactions.rating[rows].max(),
        )
        assert (sources[model.name][1] == pytest.approx(by_model, rel=1e-5)) == (
            model.name == "hybrid"
        )
    assert {name: source for name, (source, _) in sources.items()} == {
        "hybrid": "content",
        "mf": "popularity",
    }


@pytest.mark.parametrize("cold_embeddings", ["mean", "keep"])
def test_new_products_are_similar_by_their_features_where_the_model_reads_them(cold_embeddings):
    """Their own rows of the tables, all the same or what training began with, say nothing."""
    dataset = make_dataset()
    set_features(dataset, [4, 7, 8], [[1, 0, 0], [0, 1, 0], [1, 0, 0]], "features")
    trained = ~np.isin(np.arange(9), [4, 7, 8])
    rows, data = np.flatnonzero(trained[dataset.interactions.product]), dataset.interactions
    for model, by_features in (
        (Hybrid.from_data(data, embedding_dim=4), True),
        (Hybrid.from_data(data, embedding_dim=4, terms=("cosine", "features")), False),
        (MatrixFactorization.from_data(data, embedding_dim=3), False),
    ):
        for weight in model.trainable_weights:
            weight.assign_add(
                tf.random.stateless_normal(weight.shape, [1, len(weight.path)], stddev=0.3)
            )
        if cold_embeddings == "mean":
            model.impute_cold_embeddings(np.ones(12, bool), trained)
        server = serve(model, dataset, rows)
        answer = server.similar(tf.constant(dataset.catalog.product_ids[[4, 7, 0]]), tf.constant(9))
        scores = [
            dict(zip(*pair))
            for pair in zip(answer["product"].numpy() - 1000, answer["score"].numpy())
        ]
        if by_features:
            assert scores[0][8] == pytest.approx(1.0) and scores[1][8] < 0.99
        else:
            assert (
                np.isneginf(answer["score"][:2]).all()
                and (answer["product"].numpy()[:2] == -(2**63)).all()
            )
            assert set(answer["product"].numpy()[2]) == {
                -(2**63),
                *dataset.catalog.product_ids[trained],
            } - {1000}


def test_an_empty_batch_is_answered(served):
    dataset, _, _, signatures = served
    assert ask(
        signatures["score"],
        dataset.catalog.user_ids[:0],
        dataset.catalog.product_ids[:0],
        NO_CONTEXT,
    ).shape == (0,)
    assert recommend(signatures, dataset, dataset.catalog.user_ids[:0], 3)["product"].shape == (
        0,
        3,
    )


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("k", [1, 4, 20])
@pytest.mark.parametrize("lists", ["none", "exclude", "allow", "both"])
def test_recommend_equals_a_sort_of_the_scores(served, k, lists, exclude_seen):
    dataset, model, _, signatures = served
    ids, users = dataset.catalog.product_ids, np.array([0, 5, 7])
    exclude = (
        np.stack([ids[[1, 2]], ids[[3, 3]], np.array([ids[4], stranger(ids)])])
        if lists in ("exclude", "both")
        else None
    )
    allow = np.append(ids[[1, 3, 4, 6, 8]], stranger(ids)) if lists in ("allow", "both") else None
    answer = recommend(
        signatures, dataset, dataset.catalog.user_ids[users], k, exclude, allow, exclude_seen
    )
    batch = {
        "user": tf.constant(users, tf.int32),
        "context": tf.zeros([3, 2]),
        "user_features": tf.constant(dataset.catalog.user_features.dense()[users]),
    }
    every = np.arange(dataset.catalog.num_products)
    scores = in_ratings(dataset, model.score_all(batch).numpy(), every)
    for row, user in enumerate(users):
        hidden = (
            set(dataset.interactions.product[ROWS][dataset.interactions.user[ROWS] == user])
            if exclude_seen
            else set()
        )
        if exclude is not None:
            hidden |= set(np.flatnonzero(np.isin(ids, exclude[row])))
        if allow is not None:
            hidden |= set(np.flatnonzero(~np.isin(ids, allow)))
        best = [p for p in np.argsort(-scores[row]) if p not in hidden][:k]
        padding = ["" if ids.dtype.kind == "U" else str(-(2**63))] * (min(k, len(ids)) - len(best))
        assert text(answer["product"][row]) == [str(ids[p]) for p in best] + padding
        assert text(answer["title"][row]) == [f"Product {p}" for p in best] + [""] * len(padding)
        shown = np.clip(
            scores[row][best],
            dataset.interactions.rating[ROWS].min(),
            dataset.interactions.rating[ROWS].max(),
        )
        np.testing.assert_allclose(
            answer["score"][row], [*shown, *[-np.inf] * len(padding)], rtol=1e-5
        )
    assert text(answer["source"]) == ["model"] * 3


def test_an_unknown_user_gets_what_is_popular(served):
    dataset, _, _, signatures = served
    users = np.array([stranger(dataset.catalog.user_ids), dataset.catalog.user_ids[0]])
    answer = recommend(signatures, dataset, users, 3)
    count = np.bincount(dataset.interactions.product[ROWS], minlength=dataset.catalog.num_products)
    assert text(answer["source"]) == ["popularity", "model"]
    np.testing.assert_array_equal(answer["score"][0], np.sort(count)[::-1][:3])


def test_similar_products_by_the_cosine_of_their_vectors(served):
    dataset, model, _, signatures = served
    products = np.array([dataset.catalog.product_ids[4], stranger(dataset.catalog.product_ids)])
    answer = {
        name: values.numpy()
        for name, values in signatures["similar"](
            product=tf.constant(products), k=tf.constant(20)
        ).items()
    }
    vectors = model.product_embeddings().numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors[4]
    order = [p for p in np.argsort(-cosine) if p != 4]
    assert text(answer["product"][0])[: len(order)] == [
        str(dataset.catalog.product_ids[p]) for p in order
    ]
    np.testing.assert_allclose(answer["score"][0][: len(order)], cosine[order], atol=1e-5)
    assert (answer["score"][1] == -np.inf).all() and answer["score"].shape == (2, len(vectors))


def fold(server, dataset, index, rating=None, k=20):
    """recommend_for_history one list of products."""
    kind, product = (
        tf.constant(dataset.catalog.product_ids).dtype,
        dataset.catalog.product_ids[index][None],
    )
    rating = tf.constant(
        np.zeros((0, len(index))) if rating is None else np.asarray(rating)[None], tf.float32
    )
    nothing = tf.zeros([0, 0], kind), tf.zeros([0], kind)
    answer = server.recommend_for_history(
        tf.constant(product), rating, tf.constant(k), tf.constant(NO_CONTEXT), NO_TIME, *nothing
    )
    return {name: values.numpy() for name, values in answer.items()}


def test_fold_in_reaches_the_closed_form_of_matrix_factorisation():
    """argmin of mean (mu + b + b_p + <x, z_p> - y)^2 + l2 |x|^2, by numpy's solver."""
    tf.keras.utils.set_random_seed(0)
    dataset = make_dataset()
    model = MatrixFactorization.from_data(dataset.interactions, embedding_dim=3)
    for weight in model.trainable_weights:
        weight.assign_add(
            tf.random.stateless_normal(weight.shape, [2, weight.shape.rank], stddev=0.2)
        )
    index, rating = np.array([0, 2, 5, 7]), np.array([4.0, 2.0, 3.5, 1.0])
    answer = fold(serve(model, dataset), dataset, index, rating)
    factors, of_product = np.split(model.products.table.numpy(), [3], axis=1)
    z = np.c_[factors, np.ones(dataset.catalog.num_products)]
    base = model.mean.numpy() + of_product[:, 0]
    x = np.linalg.solve(
        z[index].T @ z[index] / 4 + 0.1 * np.diag([1, 1, 1, 0]),
        z[index].T @ (rating - base[index]) / 4,
    )
    scores = base + z @ x
    order = [p for p in np.argsort(-scores) if p not in index]
    assert text(answer["product"])[: len(order)] == [
        str(dataset.catalog.product_ids[p]) for p in order
    ]
    assert (
        dataset.interactions.rating[ROWS].min() < scores[order].min()
        and scores[order].max() < dataset.interactions.rating[ROWS].max()
    )  # none is clipped
    np.testing.assert_allclose(answer["score"][0][: len(order)], scores[order], atol=1e-3)
    assert text(answer["source"]) == ["fold_in"]


@pytest.mark.parametrize("power", [0.0, 3.0])
def test_fold_in_of_a_ranking_weighs_by_the_rating_as_training_does(power):
    dataset = make_dataset()
    model = MatrixFactorization.from_data(dataset.interactions, "ranking", embedding_dim=3)
    for weight in model.trainable_weights:
        weight.assign_add(
            tf.random.stateless_normal(weight.shape, [2, weight.shape.rank], stddev=0.2)
        )
    server, high = (
        serve(model, dataset, task="ranking", confidence_power=power),
        dataset.interactions.rating[ROWS].max(),
    )
    likes, loved, disliked = (
        fold(server, dataset, np.array([0, 2]), rating)["score"]
        for rating in (None, [high, high], [1.0, high])
    )
    np.testing.assert_array_equal(likes, loved)
    assert np.array_equal(likes, disliked) == (power == 0)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "ordinal"])
def test_fold_in_ends_at_the_least_of_trainings_loss(name):
    data, random = make_dataset(), np.random.RandomState(0)
    model = MatrixFactorization.from_data(data.interactions, embedding_dim=3)
    for weight in (model.users.table, model.products.table):
        weight.assign(random.normal(size=weight.shape))
    config = some_config(loss=name, target_scaling="none")
    loss = prepared_loss(config, data.interactions.take(ROWS))
    model.output = Output(loss, data.interactions, l2=0.1)
    products, y = tf.constant([[0, 1, 2, 3, 4]]), tf.constant([[0.5, 5.0, 3.0, 4.0, 9.0]])
    weight, batch, l2 = tf.constant([[1.0, 1, 1, 1, 0]]), {"user": tf.constant([0])}, 0.1
    folding = FoldIn(model, data.interactions)
    folding.start = {"users": tf.zeros(4)}
    found = folding.rows(batch, products, y, weight)["users"].numpy()

    def objective(row):
        with model.override_embeddings({"users": tf.constant(row)}):
            return float(
                tf.reduce_mean(loss.per_list(model, batch, products, y)[:, :4])
                + l2 * np.sum(row[:, :3] ** 2)
            )

    least = objective(found)
    assert least < objective(np.zeros_like(found)) - 0.01
    for direction in random.normal(size=(20, 1, 4)).astype(np.float32):
        assert objective(found + 0.05 * direction) > least - 1e-3


def test_fold_in_needs_a_known_product_and_rows_to_fold_into():
    dataset = make_dataset()
    model = MatrixFactorization.from_data(dataset.interactions, embedding_dim=3)
    unknown = replace(dataset, product_ids=dataset.catalog.product_ids + 5000)
    assert text(fold(serve(model, dataset), unknown, np.array([1, 2]))["source"]) == ["popularity"]
    popular = Popularity.from_data(dataset.interactions.take(ROWS), "ranking")
    popular.fit_closed_form(popular.data)
    answer = fold(serve(popular, dataset, task="ranking"), dataset, np.array([1, 2]))
    assert text(answer["source"]) == ["popularity"]
    assert not {str(p) for p in dataset.catalog.product_ids[[1, 2]]} & set(text(answer["product"]))


@pytest.mark.parametrize("name", ["content", "ease", "ials"])
def test_a_closed_form_is_folded_into_exactly(name):
    """A stranger with the rows of a user is recommended what the user is, those rows apart."""
    dataset = make_dataset()
    config = some_config(model=name, task="ranking", embedding_dim=4, ease_l2=2.0)
    model = parts.make_model(dataset.interactions.take(ROWS), config)
    model.fit_closed_form(model.data)
    rows = ROWS[dataset.interactions.user[ROWS] == 5]
    server = serve(model, dataset, task="ranking")
    answer = fold(
        server, dataset, dataset.interactions.product[rows], dataset.interactions.rating[rows], k=4
    )
    lists = {"exclude": tf.zeros([0, 0], tf.int64), "allow": tf.zeros([0], tf.int64)}
    known = server.recommend(
        tf.constant(dataset.catalog.user_ids[[5]]),
        k=tf.constant(4),
        context=tf.constant(NO_CONTEXT),
        timestamp=NO_TIME,
        exclude_seen=True,
        **lists,
    )
    np.testing.assert_array_equal(answer["product"], known["product"])
    np.testing.assert_allclose(answer["score"], known["score"], rtol=1e-4)
    assert text(answer["source"]) == ["fold_in"]


def test_likes_pull_their_kind_up():
    """A world of two kinds: who likes three of one kind is recommended the rest of it."""
    kinds = np.arange(12) % 2
    dataset = make_dataset(num_users=12, num_products=12, rows=100)
    settings = {"embedding_dim": 2, "biases": False}
    model = MatrixFactorization.from_data(dataset.interactions, "ranking", **settings)
    model.products.table.assign(np.where(kinds[:, None] == [0, 1], 2.0, -2.0))
    answer = fold(
        serve(model, dataset, np.arange(100), task="ranking"), dataset, np.array([1, 3, 5]), k=3
    )
    assert set(text(answer["product"])) == {str(dataset.catalog.product_ids[p]) for p in (7, 9, 11)}


def test_export_replaces_an_older_one_and_leaves_no_draft(served, tmp_path):
    (tmp_path / "export").mkdir()
    export(served[2], tmp_path / "export")
    (tmp_path / "export" / "assets" / "old").write_text("")
    export(served[2], tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert not (tmp_path / "export" / "assets" / "old").exists()
