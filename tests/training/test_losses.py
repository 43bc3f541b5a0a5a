"""Losses against numpy: values, gradients, and what they learn."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, prepared_loss, replace, some_config
from tests.worlds import write_1m, write_clubs
from tfrec import losses
from tfrec.data.negatives import Negatives
from tfrec.errors import UsageError
from tfrec.evaluation import baselines
from tfrec.evaluation.evaluate import Evaluator
from tfrec.experiments import loading, parts, run
from tfrec.models.mf import MatrixFactorization

KERAS = {
    "mse": tf.keras.losses.MeanSquaredError,
    "mae": tf.keras.losses.MeanAbsoluteError,
    "huber": tf.keras.losses.Huber,
}
NUMPY = {
    "mse": lambda e: e**2,
    "mae": np.abs,
    "huber": lambda e: np.where(np.abs(e) <= 1, e**2 / 2, np.abs(e) - 0.5),
}
BATCH, ROWS = 25, np.arange(60)
SETTINGS = {
    "mse": {"loss": "mse", "target_scaling": "none"},
    "mae": {"loss": "mae", "target_scaling": "none"},
    "huber": {"loss": "huber", "target_scaling": "none"},
    "ordinal": {"loss": "ordinal", "target_scaling": "none"},
    "sigmoid": {"loss": "sigmoid"},
    "sigmoid-shared": {"loss": "sigmoid", "shared_negatives": 6, "exclude_positives": False},
    "sigmoid-shared-others": {"loss": "sigmoid", "shared_negatives": 6, "exclude_positives": True},
    "sigmoid-hard": {"loss": "sigmoid", "hard_negatives": 7},
    "bpr": {"loss": "bpr"},
    "bpr-shared-others": {"loss": "bpr", "shared_negatives": 6, "exclude_positives": True},
    "bpr-hard": {"loss": "bpr", "hard_negatives": 7},
    "sampled_softmax": {"loss": "sampled_softmax", "negative_power": 0.7},
    "sampled_softmax-shared": {
        "loss": "sampled_softmax",
        "negatives": 0,
        "negative_power": 0.7,
        "shared_negatives": 6,
        "temperature": 0.5,
    },
    "in_batch_softmax": {"loss": "in_batch_softmax", "temperature": 0.5},
    "in_batch_softmax-others": {"loss": "in_batch_softmax", "exclude_positives": True},
}
RANKING = [
    name
    for name, settings in SETTINGS.items()
    if settings["loss"] not in ("mse", "mae", "huber", "ordinal")
]
BY_SOFTMAX = ["sampled_softmax", "in_batch_softmax"]
each = pytest.mark.parametrize("name", SETTINGS)


def make_world(name: str, data=None):
    """(loss, model with random weights, batch, y, weight).

    The last batch of an epoch, its end padded with rows of weight 0.
    """
    data = data or make_dataset()
    task = "ranking" if name in RANKING else "rating"
    config = some_config(task=task, **{"negatives": 3} | SETTINGS[name])
    random = np.random.RandomState(0)
    model = MatrixFactorization.from_data(data.interactions, embedding_dim=4)
    for variable in model.weights:
        variable.assign(random.normal(size=variable.shape))
    rows = data.interactions.take(ROWS)
    loss = prepared_loss(config, rows)
    batches = rows.batches_of(loss.batch_settings(BATCH, 0))
    batch, y, weight = next(iter(batches.dataset(start=(0, 2))))
    assert 0 < np.count_nonzero(weight == 0) < BATCH
    return loss, model, batch, y, weight


def mean(values: np.ndarray) -> float:
    """Of nothing it is 0."""
    return values.mean() if len(values) else 0.0


def in_numpy(name: str, loss: losses.Loss, scores: np.ndarray, batch, y: np.ndarray) -> np.ndarray:
    """The loss of each row, one after the other, from the scores [B, P] of everything, in f64."""
    scores, data, config = (
        scores.astype(np.float64),
        make_dataset(),
        some_config(task="ranking", **{"negatives": 3} | SETTINGS[name]),
    )
    counts = np.bincount(data.interactions.product, minlength=data.catalog.num_products)
    if config.loss == "in_batch_softmax":
        q = counts / counts.sum()
    else:
        q = counts**config.negative_power / (counts**config.negative_power).sum()
    found = []
    for row, positive in enumerate(batch["product"].numpy()):
        negatives = batch["negatives"].numpy()
        negatives = negatives if negatives.ndim == 1 else negatives[row]
        weight = batch.get("negative_weight", tf.ones(len(negatives))).numpy()
        negatives = negatives[(weight if weight.ndim == 1 else weight[row]) > 0]
        if config.get("hard_negatives", 0):
            negatives = sorted(negatives, key=lambda product: scores[row, product])[-3:]
        s, others = scores[row, positive], scores[row, negatives]
        if config.loss == "sigmoid":
            found.append((np.log1p(np.exp(-s)) + 3 * mean(np.log1p(np.exp(others)))) / 4)
        elif config.loss == "bpr":
            found.append(mean(np.log1p(np.exp(others - s))))
        else:
            logits = scores[row] / config.temperature - np.log(q)
            kept = np.array([product for product in negatives if product != positive], int)
            found.append(
                -np.log(
                    np.exp(logits[positive])
                    / (np.exp(logits[positive]) + np.exp(logits[kept]).sum())
                )
            )
    return np.array(found)


@pytest.mark.parametrize("name", KERAS)
def test_rating_losses_equal_keras_and_their_formulas(name):
    loss, model, batch, y, _ = make_world(name)
    values, predicted = loss(model, batch, y), model(batch)
    error = (predicted - y).numpy()
    assert (np.abs(error) < 1).any() and (np.abs(error) > 1).any()
    np.testing.assert_allclose(values, NUMPY[name](error), rtol=1e-5)
    np.testing.assert_allclose(
        values, KERAS[name](reduction="none")(y[:, None], predicted[:, None]), rtol=1e-5
    )


@pytest.mark.parametrize("name", RANKING)
def test_ranking_losses_equal_their_formulas(name):
    loss, model, batch, y, _ = make_world(name)
    expected = in_numpy(name, loss, model.score_all(batch).numpy(), batch, y.numpy())
    np.testing.assert_allclose(loss(model, loss.choose(model, batch), y), expected, rtol=1e-4)


def probabilities(loss: losses.Ordinal, scores: np.ndarray) -> np.ndarray:
    """P(y = each level), f64 [n, K], from the cut-points' definition."""
    raw = loss.cuts.numpy().astype(np.float64)
    cuts = np.cumsum(np.r_[raw[0], np.log1p(np.exp(raw[1:]))])
    at_most = 1 / (1 + np.exp(scores[:, None].astype(np.float64) - cuts))
    return np.diff(np.c_[np.zeros(len(scores)), at_most, np.ones(len(scores))], axis=1)


def test_ordinal_is_the_cumulative_logit_and_predicts_the_expected_rating():
    loss, model, batch, y, _ = make_world("ordinal")
    scores = model(batch).numpy()
    loss.cuts.assign_add(np.linspace(-0.3, 0.3, loss.cuts.shape[0]))
    levels = np.unique(make_dataset().interactions.rating)
    of_level = probabilities(loss, scores)
    np.testing.assert_allclose(of_level.sum(axis=1), 1)
    at = np.searchsorted(levels, y)
    np.testing.assert_allclose(
        loss(model, batch, y), -np.log(of_level[np.arange(BATCH), at]), rtol=1e-4
    )
    np.testing.assert_allclose(loss.inverse_link(scores), of_level @ levels, rtol=1e-5)
    far = np.array([-1e4, 1e4], np.float32)
    np.testing.assert_allclose(loss.inverse_link(far), [levels[0], levels[-1]])
    assert np.isfinite(loss.from_scores(far, tf.constant([5.0, 0.5]))).all()


def test_ordinal_starts_with_the_levels_shares():
    loss, *_ = make_world("ordinal")
    data = make_dataset()
    _, counts = np.unique(data.interactions.rating, return_counts=True)
    np.testing.assert_allclose(
        probabilities(loss, np.array([data.interactions.rating.mean()]))[0], counts / 60, rtol=1e-4
    )


@pytest.mark.parametrize("levels", (1, 101))
def test_ordinal_refuses_ratings_that_are_no_levels(levels):
    data = make_dataset(rows=200)
    rating = (np.arange(len(data.interactions)) % levels).astype(np.float32)
    rows = replace(data, rating=rating).interactions
    with pytest.raises(
        UsageError, match=f"^loss=ordinal: the training ratings have {levels} levels"
    ):
        losses.Ordinal(target_scaling="none").prepare(rows)


@pytest.mark.parametrize(
    "name", ["sigmoid", "bpr", "sampled_softmax", "in_batch_softmax", "ordinal"]
)
def test_it_stays_finite_at_large_scores(name):
    loss, model, batch, y, _ = make_world(name)
    model.products.table[:, -1].assign(np.linspace(-1e4, 1e4, 9))
    values = loss(model, batch, y)
    assert np.isfinite(values).all() and np.max(values) > 1000


def gradients(loss, model, batch, y, weight) -> dict[str, np.ndarray]:
    variables = {
        path: variable for path, variable in model.named_weights().items() if variable.trainable
    } | loss.named_weights()
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(weight * loss(model, batch, y))
    return {
        path: tf.convert_to_tensor(gradient).numpy()
        for path, gradient in tape.gradient(total, variables).items()
    }


@each
def test_the_gradient_is_that_of_finite_differences(name):
    loss, model, batch, y, weight = make_world(name)
    found = gradients(loss, model, batch, y, weight)
    random, step = np.random.RandomState(1), 1e-2
    variables = {
        path: variable for path, variable in model.named_weights().items() if path in found
    } | loss.named_weights()
    for path, variable in variables.items():
        direction = random.normal(size=variable.shape).astype(np.float32)
        direction /= np.sqrt(np.sum(direction**2)) + 1e-9
        ends = []
        for sign in (1, -1):
            variable.assign_add(sign * step * direction)
            ends.append(float(tf.reduce_sum(weight * loss(model, batch, y))))
            variable.assign_sub(sign * step * direction)
        assert np.sum(found[path] * direction) == pytest.approx(
            (ends[0] - ends[1]) / (2 * step), rel=0.03, abs=0.03
        ), path


@each
def test_rows_of_weight_0_have_no_gradient(name):
    loss, model, batch, y, weight = make_world(name)
    whole = gradients(loss, model, batch, y, weight)
    real = np.flatnonzero(weight)
    of_all = {
        key
        for key in ("negatives", "negative_weight")
        if key in batch and (batch[key].shape.rank == 1)
    }
    kept = {
        key: column if key in of_all else tf.gather(column, real) for key, column in batch.items()
    }
    fewer = gradients(loss, model, kept, tf.gather(y, real), weight.numpy()[real])
    for path, gradient in whole.items():
        np.testing.assert_allclose(gradient, fewer[path], atol=1e-4, err_msg=path)
    assert max(np.abs(gradient).max() for gradient in whole.values()) > 0


def test_a_shared_pool_weighs_as_much_as_negatives_of_ones_own():
    """The pool of every product is the expectation of any number of uniform draws.

    Few rows of the product table have a gradient.
    """
    loss, model, batch, y, _ = make_world("sigmoid-shared")
    whole = batch | {"negatives": tf.range(9)}
    drawn = batch | {
        "negatives": tf.random.stateless_uniform([BATCH, 5000], [1, 0], maxval=9, dtype=tf.int32)
    }
    many = losses.Sigmoid(negatives=5000)
    np.testing.assert_allclose(many(model, whole, y), many(model, drawn, y), rtol=0.05)
    with tf.GradientTape() as tape:
        value = loss(model, batch, y)
    assert tape.gradient(value, model.products.table.value).indices.shape == [BATCH + 6]


def test_lists_are_scored_like_their_rows():
    """What fold-in minimises is what training does."""
    for name in SETTINGS:
        loss, model, batch, y, _ = make_world(name)
        pool = {} if name not in RANKING else {"negatives": tf.constant([0, 3, 5, 8])}
        batch = {
            key: value
            for key, value in batch.items()
            if key not in ("negatives", "negative_weight")
        } | pool
        other = (batch["product"] + 1) % 9
        lists = loss.per_list(
            model, batch, tf.stack([batch["product"], other], axis=1), tf.stack([y, y], axis=1)
        )
        np.testing.assert_allclose(lists[:, 0], loss(model, batch, y), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(
            lists[:, 1],
            loss(model, batch | {"product": other} | features_of(other), y),
            rtol=1e-5,
            err_msg=name,
        )


def features_of(products: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"features": tf.gather(make_dataset().catalog.features.dense(), products)}


@pytest.mark.parametrize(("corrected", "slope"), ((True, 1.0), (False, 0.0)))
def test_in_batch_softmax_learns_log_popularity_only_with_the_correction(corrected, slope):
    """Users choose by popularity alone, p.

    The full softmax is least at a score of log p, the uncorrected in-batch one at no difference.
    """
    p = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    counts = np.round(p * 10_000).astype(np.int64)
    loss, stats = losses.InBatchSoftmax(), SimpleNamespace(mean=1.0, range=(1.0, 1.0))
    counts = counts if corrected else np.ones(6, np.int64)
    rows = {"in_memory": True, "timed": False, "check_recency": lambda recency: None}
    loss.prepare(SimpleNamespace(counts=lambda side: counts, stats=stats, **rows))
    product = tf.constant(np.random.RandomState(0).choice(6, 4096, p=p), tf.int32)
    bias = tf.Variable(np.zeros(6, np.float32))
    for _ in range(100):
        with tf.GradientTape() as tape:
            scores = tf.matmul(tf.one_hot(product, 6), bias[:, None])
            mine, pool = (
                tf.reshape(scores, [-1, 2]),
                tf.reshape(product, [-1, 2]),
            )  # batches of two rows
            value = tf.reduce_mean(loss.from_scores(mine, mine, pool, pool, None))
        bias.assign_sub(4.0 * tape.gradient(value, bias))
    found = np.polyfit(np.log(p), bias.numpy(), 1)[0]
    assert found == pytest.approx(slope, abs=0.15)


def test_negatives_of_the_settings():
    def of(**settings):
        return parts.make_loss(some_config(task="ranking", **settings)).negatives

    assert of(loss="bpr", negatives=4) == Negatives(4)
    assert of(loss="bpr", negatives=4, hard_negatives=16, negative_power=0.5) == Negatives(
        16, power=0.5
    )
    assert of(loss="in_batch_softmax", exclude_positives=True) == Negatives(
        8, in_batch=True, power=1.0, exclude_positives=True
    )
    assert of(loss="sigmoid", shared_negatives=64) == Negatives(8, shared=64)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Settings by task.

    Ratings with taste in them, and products taken that popularity knows nothing of.
    """
    folder = tmp_path_factory.mktemp("worlds")
    rated = {
        "dataset": "1m",
        "data_dir": str(write_1m(folder / "rated", rows=2000)),
        "learning_rate": 0.05,
    }
    taken = {
        "dataset": "files",
        "interactions": str(write_clubs(folder / "taken")),
        "task": "ranking",
        "learning_rate": 0.1,
    }
    return {"rating": rated, "ranking": taken}


@pytest.mark.parametrize(
    "name", ["mse", "mae", "huber", "ordinal", "sigmoid", "sigmoid-hard", "bpr", *BY_SOFTMAX]
)
def test_it_learns_what_is_planted(worlds, name, tmp_path):
    """Through the whole loop.

    Well below the global mean's error, or twice as good a ranking as popularity's.
    """
    task = "ranking" if name in RANKING else "rating"
    small = {
        "model": "mf",
        "embedding_dim": 8,
        "batch_size": 64,
        "epochs": 6,
        "l2": 0.01,
        "split": "random",
        "validation_fraction": 0.2,
    }
    config = some_config(
        **(small | worlds[task] | {"negatives": 3} | SETTINGS[name]), workdir=str(tmp_path / "run")
    )
    figures = run.validate(config)["validation"]
    split, config = loading.load(config)
    baseline = baselines.fit(split.train)["popularity" if task == "ranking" else "global_mean"]
    evaluator = Evaluator(baseline, split, config.evaluation, part="validation")
    if task == "ranking":
        assert figures["ndcg@10"] > 2 * evaluator.ranking_metrics()["ndcg@10"]
    else:
        assert figures["rmse"] < 0.75 * evaluator.rating_metrics()["rmse"]


def test_cut_points_are_resumed(worlds, tmp_path):
    """A run of two epochs, and one that is stopped after the first.

    The same cut-points, which have moved.
    """
    config = some_config(
        model="mf",
        batch_size=64,
        epochs=2,
        loss="ordinal",
        schedule="constant",
        early_stopping=0,
        **worlds["rating"],
    )

    def cuts(epochs: int, folder: str) -> np.ndarray:
        tf.keras.utils.set_random_seed(0)
        split, settings = loading.load(config.replace(epochs=epochs))
        model = parts.make_trained(split.train, settings)
        started.append(model.output.loss.cuts.numpy())
        strategy = tf.distribute.get_strategy()
        run.Run(settings, split, model, strategy).fit(tmp_path / folder)
        return model.output.loss.cuts.numpy()

    started: list[np.ndarray] = []
    whole, first, resumed = cuts(2, "whole"), cuts(1, "cut"), cuts(2, "cut")
    np.testing.assert_allclose(resumed, whole, rtol=1e-5)
    assert np.abs(first - started[0]).min() > 1e-3 and np.abs(whole - first).min() > 1e-4


@pytest.mark.parametrize("how", ["random", "kfold", "cold_user", "cold_product"])
def test_recency_is_off_where_test_rows_are_no_later(how):
    """Unless it is given; also for what is trained anew on the validation rows."""
    data = make_dataset(rows=90)
    for split, expected in ((data.split(how), 0.0), (data.split("user_temporal"), 5.0)):
        for train in (split.train, split.refitted("validation").train):
            loss, given = losses.SampledSoftmax(), losses.SampledSoftmax(recency=2.0)
            for each in (loss, given):
                each.prepare(train)
            assert (loss.recency, given.recency) == (expected, 2.0)
