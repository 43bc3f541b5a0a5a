"""What the outer loop does around the steps.

Early stopping, the weights that are kept, TensorBoard's figures.
"""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.worlds import write_1m
from tfrec.config import make_config
from tfrec.errors import TfrecError
from tfrec.evaluation.evaluate import Evaluator
from tfrec.experiments import loading, parts, run
from tfrec.losses import SquaredError
from tfrec.optimizers import SGD, Adagrad
from tfrec.training import checkpoints, loop


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that over-fits and is stopped: (config, result, workdir)."""
    folder = write_1m(tmp_path_factory.mktemp("world"))
    config = make_config(
        dataset="1m",
        data_dir=str(folder),
        model="mf",
        embedding_dim=8,
        batch_size=64,
        learning_rate=0.05,
        l2=0.0,
        epochs=40,
        early_stopping=2,
        steps_per_loop=4,
        workdir=str(folder / "run"),
    )
    return config, run.train(config), folder / "run"


def events(workdir):
    found = EventAccumulator(str(workdir / "logs"), size_guidance={"tensors": 0})  # 0: all
    found.Reload()
    return found


def scalars(workdir):
    """{tag: [(step, value)]}."""
    found = events(workdir)
    tags = [tag for tag in found.Tags()["tensors"] if tag.startswith(("train/", "validation/"))]
    return {
        tag: [
            (event.step, tf.make_ndarray(event.tensor_proto).item()) for event in found.Tensors(tag)
        ]
        for tag in tags
    }


def test_early_stopping_keeps_the_best_weights(finished):
    _, result, workdir = finished
    train = result["train"]
    assert train["epochs"] == train["best_epoch"] + 2 < 40
    history = [value for _, value in scalars(workdir)["validation/rmse"]]
    assert np.argmin(history) + 1 == train["best_epoch"]
    np.testing.assert_allclose(result["validation"]["rmse"], min(history), rtol=1e-6)


def test_only_the_last_and_the_best_checkpoint_stay(finished):
    _, result, workdir = finished
    steps = checkpoints.steps(workdir / "checkpoints")
    per_epoch = steps[1] // result["train"]["epochs"]
    assert steps == [
        per_epoch * result["train"]["best_epoch"],
        per_epoch * result["train"]["epochs"],
    ]


def test_tensorboard_has_the_figures_and_the_config(finished):
    workdir = finished[2]
    found = scalars(workdir)
    per_loop = {"train/loss", "train/learning_rate", "train/rows_per_second", "train/gradient_norm"}
    assert per_loop | {"validation/rmse", "validation/mae"} <= found.keys()
    for tag in per_loop:
        steps = [step for step, _ in found[tag]]
        assert np.diff(steps).max() <= 4
        assert all(np.isfinite(value) and value > 0 for _, value in found[tag])
    assert {"user/table/factors", "user/table/bias", "mean", "recommendations"} <= set(
        events(workdir).Tags()["tensors"]
    )
    text = events(workdir).Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "--model=mf" in text and "--split=user_temporal" in text


def test_without_validation_rows_the_last_weights_are_kept(finished, tmp_path):
    config = finished[0].replace(validation_fraction=0.0, epochs=3, workdir=str(tmp_path))
    result = run.train(config)
    assert "validation" not in result
    assert (result["train"]["epochs"], result["train"]["best_epoch"]) == (3, 3)
    assert len(checkpoints.steps(tmp_path / "checkpoints")) == 1


def make_trainer(config, rate):
    split, config = loading.load(config)
    model = parts.make_model(split.train, config)
    trainer = loop.Trainer(
        tf.distribute.get_strategy(),
        model,
        SquaredError(),
        SGD(rate),
        64,
        jit_compile=False,
    )

    batches = split.train.batches(64)

    def from_start(start):
        return iter(batches.dataset(start))

    evaluator = Evaluator(model, split, config.evaluation, part="validation")
    return trainer, from_start, len(split.train), evaluator.rating_metrics


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_good_checkpoint(finished, tmp_path):
    config = finished[0].replace(epochs=2, workdir=str(tmp_path))
    trainer, batches, rows, validate = make_trainer(config, 0.01)
    loop.fit(trainer, batches, rows, config, tmp_path, validate, ("rmse", False), 0, str)
    good = checkpoints.steps(tmp_path / "checkpoints")
    trainer, batches, rows, validate = make_trainer(config, 1e9)
    with pytest.raises(
        TfrecError,
        match=rf"the loss is not finite at step "
        rf"({good[-1] + 1}|{good[-1] + 2}|{good[-1] + 3}|{good[-1] + 4})\.",
    ):
        loop.fit(
            trainer,
            batches,
            rows,
            config.replace(epochs=4),
            tmp_path,
            validate,
            ("rmse", False),
            0,
            str,
        )
    assert checkpoints.steps(tmp_path / "checkpoints") == good


class PowerCutError(Exception):
    pass


def test_a_long_epoch_is_saved_in_its_middle_and_goes_on_from_there(
    finished, tmp_path, monkeypatch
):
    """With a clock on which a minute passes at every look, every inner loop is saved."""
    config = finished[0].replace(epochs=2, early_stopping=0)
    now = iter(range(0, 10**9, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    ends, saved, keep = [], [], checkpoints.keep

    def fit(workdir, where=config):
        tf.keras.utils.set_random_seed(0)
        trainer, batches, rows, validate = make_trainer(config, 0.01)
        loop.fit(trainer, batches, rows, where, workdir, validate, ("rmse", False), 0, str)
        ends.append({path: variable.numpy() for path, variable in trainer.variables().items()})
        return -(-rows // 64)

    def cut_at_the_sixth(folder, wanted):
        keep(folder, wanted)
        saved.append(max(wanted))
        if len(saved) == 4:
            raise PowerCutError

    steps = fit(tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "keep", cut_at_the_sixth)
    with pytest.raises(PowerCutError):
        fit(tmp_path / "cut")
    assert saved[-1] % steps, "the cut is in the middle of an epoch"
    assert (
        checkpoints.state(tmp_path / "cut" / "checkpoints", saved[-1])["visited"]
        == saved[-1] % steps * 64
    )
    monkeypatch.setenv(
        "TF_CONFIG",
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}',
    )
    with pytest.raises(
        TfrecError,
        match=r"on disk were cut among 1 machines, and would now be cut among 2\. Go on with as "
        r"many",
    ):
        fit(tmp_path / "cut", config.replace(dataset="blocks:x", strategy="multi_worker"))
    fit(tmp_path / "cut")
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "message", "left"),
    [
        (
            {
                "optimizer": "sgd",
                "similarity": "cosine",
                "biases": False,
                "validation_fraction": 0.0,
                "target_scaling": "none",
            },
            r"weight head/(kernel|bias) is not finite after step 1",
            set(),
        ),
        ({"optimizer": "adam"}, "validation rmse is not finite after step 1", set()),
        (
            {"optimizer": "adam", "validation_fraction": 0.0},
            "a metric is not finite",
            {"checkpoints"},
        ),
    ],
)
def test_a_diverged_run_leaves_no_result(finished, tmp_path, changes, message, left):
    """Its only step has a finite loss."""
    config = finished[0].replace(
        workdir=str(tmp_path / "run"), learning_rate=3e38, batch_size=4096, epochs=1, **changes
    )
    with pytest.raises(TfrecError, match=message):
        run.train(config)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.flags", "logs"} | left


def test_other_data_do_not_go_on_with_the_run(finished, tmp_path):
    config = finished[0].replace(epochs=1, workdir=str(tmp_path))
    for data in (1, 1, 2):
        trainer, batches, rows, validate = make_trainer(config, 0.01)
        with (
            contextlib.nullcontext()
            if data == 1
            else pytest.raises(TfrecError, match="the data have changed since this run began")
        ):
            loop.fit(trainer, batches, rows, config, tmp_path, validate, ("rmse", False), data, str)


def test_a_frozen_layer_stays(finished):
    split, config = loading.load(finished[0])
    model = parts.make_model(split.train, config)
    model.users.trainable = False
    trainer = loop.Trainer(
        tf.distribute.get_strategy(),
        model,
        SquaredError(),
        SGD(0.1),
        64,
        jit_compile=False,
    )
    assert "users/table" not in trainer.trainable
    before = {path: variable.numpy() for path, variable in trainer.weights.items()}
    trainer.train(
        iter(split.train.batches(64)),
        tf.constant(3, tf.int64),
    )
    moved = {
        path
        for path, variable in trainer.weights.items()
        if not np.array_equal(variable.numpy(), before[path])
    }
    assert moved == trainer.trainable.keys()


def test_the_padding_of_a_short_batch_does_not_change_the_step(finished):
    """30 rows in a batch of 30, 60 and 480: the same weights, with L2 and Adagrad."""
    split, config = loading.load(finished[0])
    ends = []
    for batch_size in (30, 60, 480):
        tf.keras.utils.set_random_seed(0)
        model = parts.make_model(split.train, config)
        optimizer = Adagrad(0.1, sparse_updates="always")
        trainer = loop.Trainer(
            tf.distribute.get_strategy(),
            model,
            SquaredError(),
            optimizer,
            batch_size,
            jit_compile=False,
            l2=0.5,
        )
        batches = split.train.take(np.arange(30)).batches(batch_size)
        trainer.train(iter(batches), tf.constant(5, tf.int64))
        ends.append({path: variable.numpy() for path, variable in trainer.weights.items()})
    for end in ends[1:]:
        for path, value in ends[0].items():
            np.testing.assert_allclose(end[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
