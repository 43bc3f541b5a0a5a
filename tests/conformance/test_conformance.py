"""What must hold of every model in the table of models, for each task that it does, through the
real run.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import batch_of, some_config
from tests.worlds import write_1m
from tfrec import layers
from tfrec.evaluation.evaluate import Evaluator
from tfrec.experiments import loading, parts, run, workdirs
from tfrec.experiments.tables import MODELS, OPTIMIZERS
from tfrec.models.hybrid import TERMS
from tfrec.optimizers import updates
from tfrec.training import checkpoints, strategies, trainer
from tfrec.training.hooks import ProgressBar
from tfrec.training.trainer import Trainer

# name: settings; the hybrid with all its terms, too
VARIANTS = {name: {"model": name} for name in MODELS} | {
    "hybrid-all-terms": {"model": "hybrid", "terms": TERMS},
    "mf-cosine": {"model": "mf", "similarity": "cosine"},
    "mf-implicit-factors": {"model": "mf", "implicit_factors": ("user", "product")},
    "ncf-without-biases": {"model": "ncf", "biases": False},
    "mlp-alone": {"model": "ncf", "cosine": False},
    "neumf": {"model": "ncf", "gmf_dim": 5, "mlp_layers": (8, 6, 3)},
}
EVERY = [
    (name, task) for name, settings in VARIANTS.items() for task in MODELS[settings["model"]].tasks
]
TRAINED = [(name, task) for name, task in EVERY if not MODELS[VARIANTS[name]["model"]].closed_form]
EXPORTED = [(name, task) for name, task in EVERY if name in MODELS]
# each model, at its largest, and both tasks
WHOLE_RUNS = [("mf", "ranking"), ("ncf", "rating"), ("hybrid-all-terms", "ranking")]


@pytest.fixture(autouse=True)
def ordered_batches(monkeypatch):
    """Small batches tell the order of their rows, too, as large ones do."""
    monkeypatch.setattr(trainer, "ORDERED_FROM", 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def settings(world, name, task, **more):
    small = {
        "embedding_dim": 8,
        "batch_size": 64,
        "negatives": 3,
        "learning_rate": 0.01,
        "epochs": 2,
        "validation_fraction": 0.1,
    }
    return some_config(dataset="1m", data_dir=world, task=task, **(VARIANTS[name] | small | more))


@pytest.fixture
def made(world, request):
    """(model with random weights, or fitted; split; config)."""
    name, task = request.param
    tf.keras.utils.set_random_seed(1)
    split, config = loading.load(settings(world, name, task))
    model = parts.make_model(split.train, config)
    if model.closed_form:
        model.fit_closed_form(model.data)
    else:
        # biases start at zero, where a mistake would not show
        for weight in model.trainable_weights:
            weight.assign(tf.random.normal(weight.shape, stddev=0.5))
    return model, split, config


def ids(pairs):
    return ["-".join(pair) for pair in pairs]


@pytest.mark.parametrize("made", EVERY, ids=ids(EVERY), indirect=True)
def test_every_way_of_scoring_agrees(made):
    model, split, _ = made
    catalog, batch = split.catalog, batch_of(split.train.take(np.arange(50)))
    every = tf.range(catalog.num_products)
    everything = model.score_all(batch).numpy()
    assert everything.shape == (50, catalog.num_products)
    np.testing.assert_allclose(
        model(batch), everything[np.arange(50), batch["product"]], rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        model.score_candidates(batch, every), everything, rtol=1e-5, atol=1e-5
    )
    tiled = tf.tile(every[None], [50, 1])
    np.testing.assert_allclose(
        model.score_candidates(batch, tiled), everything, rtol=1e-5, atol=1e-5
    )
    for product in range(0, catalog.num_products, 7):
        one = batch | {
            "product": tf.fill([50], product),
            "features": tf.tile(catalog.features.dense()[None, product], [50, 1]),
        }
        np.testing.assert_allclose(model(one), everything[:, product], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("made", EVERY, ids=ids(EVERY), indirect=True)
def test_it_is_an_ordinary_keras_model(made, capsys):
    model, split, _ = made
    model.summary()
    assert f"{model.count_params():,}" in capsys.readouterr().out
    if model.closed_form:
        return
    before = [weight.numpy() for weight in model.trainable_weights]
    model.compile("adam", "mse")
    batches = tf.data.Dataset.from_tensor_slices((batch_of(split.train), split.train.rating)).batch(
        64
    )
    history = model.fit(batches, epochs=5, shuffle=False, verbose=0).history["loss"]
    assert history[-1] < history[0]
    unmoved = [
        weight.path
        for weight, old in zip(model.trainable_weights, before)
        if np.array_equal(weight.numpy(), old)
    ]
    assert not unmoved


@pytest.mark.parametrize("made", EVERY, ids=ids(EVERY), indirect=True)
def test_restored_weights_are_equal_by_value(made, tmp_path):
    model, split, config = made
    weights = model.named_weights()
    checkpoints.save(tmp_path, 7, weights, {"epoch": 1})
    other = parts.make_model(split.train, config)
    checkpoints.restore(tmp_path, 7, other.named_weights())
    for path, weight in other.named_weights().items():
        np.testing.assert_array_equal(weight.numpy(), weights[path].numpy(), err_msg=path)


@pytest.mark.parametrize("made", TRAINED, ids=ids(TRAINED), indirect=True)
def test_twenty_steps_lower_the_loss(made):
    model, split, config = made
    loss = parts.make_loss(config)
    trainer = Trainer(model, loss, OPTIMIZERS["adam"](0.01), batch_size=64, l2=0.0)
    fixed = [next(trainer.iterate(split.train))]

    def value():
        batch, y, weight = fixed[0]
        return float(tf.reduce_mean(weight * loss(model, batch, y)))

    before = value()
    trainer.run(trainer.iterate(split.train), 20)
    assert trainer.steps.steps_done() == 20
    assert value() < before


def final_variables(workdir):
    """{name: array} of the last checkpoint."""
    folder = workdir / "checkpoints"
    reader = tf.train.load_checkpoint(
        str(folder / f"step-{checkpoints.steps(folder)[-1]}" / "variables")
    )
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if not name.startswith("_CHECK")
    }


def fit(config):
    """A run's training without what comes after it."""
    strategy = strategies.make(config.get("strategy", "default"), config.get("virtual_devices", 0))
    tf.keras.utils.set_random_seed(config.seed)
    tf.keras.mixed_precision.set_global_policy(config.precision)
    try:
        split, config = loading.load(config)
        with workdirs.open_workdir(config) as workdir:
            with strategy.scope():
                model = parts.make_trained(split.train, config)
            run.Run(config, split, model, strategy).fit(workdir)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
    return Evaluator(model, split, config.evaluation)


# those beside the defaults, and the ways to draw negatives. By Adagrad: a mean and biases of users
# have no gradient but rounding errors in a loss that only compares a user's products, and Adam
# would make steps of them.
LOSSES = [
    ("mf", "rating", {"loss": "ordinal"}),
    ("mf", "ranking", {"loss": "sigmoid", "shared_negatives": 20}),
    (
        "mf",
        "ranking",
        {
            "loss": "bpr",
            "hard_negatives": 6,
            "negative_power": 0.5,
            "exclude_positives": True,
            "optimizer": "adagrad",
        },
    ),
    ("mf", "ranking", {"loss": "sampled_softmax", "negative_power": 0.5, "optimizer": "adagrad"}),
    ("mf", "ranking", {"loss": "in_batch_softmax", "temperature": 0.5, "optimizer": "adagrad"}),
]
REPLICATED = [(name, task, {}) for name, task in WHOLE_RUNS] + LOSSES
REPLICATED.append(("hybrid-all-terms", "rating", {}))


def exact(name, task):
    """Settings of runs whose weights are compared: nothing is dropped, and no constant that is
    added to all scores cancels, whose gradient is rounding errors alone.
    """
    found = {"loss": "sigmoid"} if task == "ranking" else {}
    names = {"ncf": "dropout", "hybrid": "id_dropout"}
    return found | {names[part]: 0.0 for part in [name.split("-")[0]] if part in names}


@pytest.mark.parametrize(
    ("name", "task", "more"),
    REPLICATED,
    ids=["-".join([name, task, *map(str, more.values())]) for name, task, more in REPLICATED],
)
def test_two_replicas_end_in_the_same_weights(name, task, more, world, tmp_path):
    """20 steps (two epochs whose last batch is padded), the same global batch on one device and on
    two.
    """
    ends = []
    for devices, strategy in ((0, "default"), (2, "mirrored")):
        where = {
            "virtual_devices": devices,
            "strategy": strategy,
            "workdir": str(tmp_path / strategy),
        }
        given = {"batch_size": 72, "early_stopping": 0} | exact(name, task) | more | where
        fit(settings(world, name, task, **given))
        ends.append(final_variables(tmp_path / strategy))
    assert ends[0]["step/.ATTRIBUTES/VARIABLE_VALUE"] == 20
    assert ends[0].keys() == ends[1].keys()
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, rtol=1e-5, atol=1e-5, err_msg=path)


@pytest.mark.parametrize("task", ("rating", "ranking"))
def test_sparse_features_train_like_dense_ones_on_any_number_of_devices(
    task, world, tmp_path, monkeypatch
):
    """By Adagrad, whose sparse updates are those of its dense ones."""
    monkeypatch.setattr(updates, "SMALL", 0)
    ends = []
    for narrow, padding, strategy, devices in (
        (64, 2, "default", 0),
        (0, 100, "default", 0),
        (0, 0, "default", 0),
        (0, 0, "mirrored", 2),
    ):
        monkeypatch.setattr(layers.features, "NARROW", narrow)
        monkeypatch.setattr(layers.features, "PADDING", padding)
        where = {"virtual_devices": devices, "strategy": strategy, "optimizer": "adagrad"}
        folder = tmp_path / f"{narrow}{padding}{strategy}"
        more = {"batch_size": 72, "early_stopping": 0, "workdir": str(folder)} | where
        more |= exact("hybrid", task)
        trained = fit(settings(world, "hybrid-all-terms", task, **more)).model
        ends.append({path: w.numpy() for path, w in trained.named_weights().items()})
        assert ("features/begins" in ends[-1]) == (padding == 0)
    trained.draw_weights(0)
    start = trained.named_weights()["of_features/kernel"].numpy()
    assert np.abs(ends[0]["of_features/kernel"] - start).max() > 1e-3
    for path, value in ends[0].items():
        for other in ends[1:] if not path.endswith("features/table") else ():
            np.testing.assert_allclose(other[path], value, rtol=1e-4, atol=1e-5, err_msg=path)


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize(("name", "task"), WHOLE_RUNS, ids=ids(WHOLE_RUNS))
def test_interrupted_and_resumed_ends_bit_for_bit(name, task, world, tmp_path, monkeypatch):
    tf.config.experimental.enable_op_determinism()
    more = {"steps_per_loop": 4, "epochs": 3, "early_stopping": 2}
    fit(settings(world, name, task, workdir=str(tmp_path / "whole"), **more))
    loops = []

    def power_cut(*arguments):
        loops.append(arguments)
        if len(loops) == 5:  # in the second epoch
            raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "after_loop", power_cut)
        with pytest.raises(PowerCutError):
            fit(settings(world, name, task, workdir=str(tmp_path / "cut"), **more))
    fit(settings(world, name, task, workdir=str(tmp_path / "cut"), **more))
    ends = final_variables(tmp_path / "whole"), final_variables(tmp_path / "cut")
    assert ends[0].keys() == ends[1].keys()
    for path, value in ends[0].items():
        np.testing.assert_array_equal(ends[1][path], value, err_msg=path)


SERVED = [
    (name, task, {"target_scaling": "product_minmax" if task == "rating" else "none"})
    for name, task in EXPORTED
] + LOSSES


@pytest.mark.parametrize(
    ("name", "task", "more"),
    SERVED,
    ids=["-".join([name, task, *map(str, more.values())]) for name, task, more in SERVED],
)
def test_the_export_answers_like_the_evaluation(name, task, more, world, tmp_path):
    """Scores of the SavedModel on raw ids, against those of the model as its run is reopened."""
    config = settings(world, name, task, workdir=str(tmp_path / "run"), epochs=1, **more)
    trained = run.Run.begin(config)
    trained.fit(trained.folder)
    trained.export(tmp_path / "export")
    config, split = trained.settings, trained.split
    picked = config.replace(**trained.picked)
    reopened = run.Run(config, split, parts.make_trained(split.train, picked))
    reopened.restore()
    score = tf.saved_model.load(str(tmp_path / "export")).signatures["score"]
    rows, catalog = split.test, split.catalog
    user, product = catalog.user_ids[rows.user], catalog.product_ids[rows.product]
    times = {"context": tf.zeros([0, 2]), "timestamp": tf.constant(rows.timestamp)}
    answer = score(user=tf.constant(user), product=tf.constant(product), **times)["rating"]
    expected = Evaluator(reopened.model, split, config.evaluation).scores()
    if task == "rating":
        expected = np.clip(expected, *split.train.stats.range)
    np.testing.assert_allclose(answer, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "task"), WHOLE_RUNS, ids=ids(WHOLE_RUNS))
def test_mixed_precision_comes_close_and_keeps_float32_weights(name, task, world, tmp_path):
    mixed, plain = (  # without validation, of whose epochs another one may be the best
        fit(
            settings(
                world,
                name,
                task,
                precision=precision,
                validation_fraction=0.0,
                workdir=str(tmp_path / precision),
            )
        )
        for precision in ("mixed_bfloat16", "float32")
    )
    if task == "rating":
        assert mixed.rating_metrics()["rmse"] == pytest.approx(
            plain.rating_metrics()["rmse"], abs=0.02
        )
    else:
        assert mixed.ranking_metrics()["auc"] == pytest.approx(
            plain.ranking_metrics()["auc"], abs=0.02
        )
    assert all(
        value.dtype in (np.float32, np.int64)
        for value in final_variables(tmp_path / "mixed_bfloat16").values()
    )
    assert {str(layer.compute_dtype) for layer in mixed.model._flatten_layers()} == {"float32"}
    scores = mixed.model.score_all(
        {name: column[:1] for name, column in batch_of(mixed.rows.take(np.arange(4))).items()}
    )
    assert np.any(
        np.asarray(scores) != np.asarray(tf.cast(tf.cast(scores, tf.bfloat16), tf.float32))
    )


@pytest.mark.parametrize(("name", "task"), [("ncf", "rating"), ("hybrid-all-terms", "ranking")])
def test_xla_ends_in_the_same_weights(name, task, world, tmp_path):
    for folder, jit_compile in (("plain", False), ("xla", True)):
        given = {"jit_compile": jit_compile, "epochs": 1} | exact(name, task)
        fit(settings(world, name, task, workdir=str(tmp_path / folder), **given))
    plain, compiled = final_variables(tmp_path / "plain"), final_variables(tmp_path / "xla")
    for path, value in plain.items():
        np.testing.assert_allclose(compiled[path], value, rtol=1e-3, atol=1e-4, err_msg=path)
