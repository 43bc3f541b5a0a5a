"""What the outer loop does around the steps: early stopping, the weights that are kept, TensorBoard's figures."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.worlds import write_1m
from tfrec import run
from tfrec.config import make_config
from tfrec.data import pipeline
from tfrec.errors import TfrecError
from tfrec.evaluation.evaluate import Evaluator
from tfrec.models import build
from tfrec.training import checkpoints, loop
from tfrec.training.losses import LOSSES
from tfrec.training.optimizers import SGD, schedule


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that over-fits and is stopped: (config, result, workdir)."""
    folder = write_1m(tmp_path_factory.mktemp("world"))
    config = make_config(
        dataset="1m", data_dir=str(folder), model="mf", embedding_dim=8, batch_size=64, learning_rate=0.05, l2=0.0, epochs=40,
        early_stopping=2, steps_per_loop=4, workdir=str(folder / "run"),
    )  # fmt: skip
    return config, run.train(config), folder / "run"


def events(workdir):
    found = EventAccumulator(str(workdir / "logs"), size_guidance={"tensors": 0})  # 0: all
    found.Reload()
    return found


def scalars(workdir):
    """{tag: [(step, value)]}."""
    found = events(workdir)
    tags = [tag for tag in found.Tags()["tensors"] if not tag.startswith("config")]
    return {tag: [(event.step, tf.make_ndarray(event.tensor_proto).item()) for event in found.Tensors(tag)] for tag in tags}


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
    assert steps == [per_epoch * result["train"]["best_epoch"], per_epoch * result["train"]["epochs"]]


def test_tensorboard_has_the_figures_and_the_config(finished):
    workdir = finished[2]
    found = scalars(workdir)
    per_loop = {"train/loss", "train/learning_rate", "train/rows_per_second", "train/gradient_norm"}
    assert per_loop | {"validation/rmse", "validation/mae"} <= found.keys()
    for tag in per_loop:
        steps = [step for step, _ in found[tag]]
        assert np.diff(steps).max() <= 4
        assert all(np.isfinite(value) and value > 0 for _, value in found[tag])
    text = events(workdir).Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "--model=mf" in text and "--split=user_temporal" in text


def test_without_validation_rows_the_last_weights_are_kept(finished, tmp_path):
    config = finished[0].replace(validation_fraction=0.0, epochs=3, workdir=str(tmp_path))
    result = run.train(config)
    assert "validation" not in result
    assert (result["train"]["epochs"], result["train"]["best_epoch"]) == (3, 3)
    assert len(checkpoints.steps(tmp_path / "checkpoints")) == 1


def make_trainer(config, rate):
    dataset, rows, config = run.load(config)
    model = build(dataset, rows.train, config.model)
    trainer = loop.Trainer(tf.distribute.get_strategy(), model, LOSSES["mse"], SGD(schedule("constant", rate, 1)), 64, jit_compile=False)

    def batches(start):
        return iter(pipeline.training_batches(dataset, rows.train, "rating", 64, 1, 0, start))

    evaluator = Evaluator(model, "rating", dataset, rows.validation, rows.train, config.evaluation)
    return trainer, batches, len(rows.train), evaluator.rating_metrics


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_good_checkpoint(finished, tmp_path):
    config = finished[0].replace(epochs=2, workdir=str(tmp_path))
    trainer, batches, rows, validate = make_trainer(config, 0.01)
    loop.fit(trainer, batches, rows, config, tmp_path, validate, ("rmse", False))
    good = checkpoints.steps(tmp_path / "checkpoints")
    trainer, batches, rows, validate = make_trainer(config, 1e9)
    with pytest.raises(
        TfrecError, match=rf"the loss is not finite at step ({good[-1] + 1}|{good[-1] + 2}|{good[-1] + 3}|{good[-1] + 4})\."
    ):
        loop.fit(trainer, batches, rows, config.replace(epochs=4), tmp_path, validate, ("rmse", False))
    assert checkpoints.steps(tmp_path / "checkpoints") == good


def test_a_long_epoch_is_saved_in_its_middle(finished, tmp_path, monkeypatch):
    """With a clock on which a minute passes at every look, every inner loop is saved; resumed from there, nothing changes."""
    config = finished[0].replace(epochs=1, early_stopping=0, workdir=str(tmp_path / "whole"))
    now = iter(range(0, 10**9, 100))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(now)))
    trainer, batches, rows, validate = make_trainer(config, 0.01)
    saved = []
    keep = checkpoints.keep
    monkeypatch.setattr(checkpoints, "keep", lambda folder, wanted: saved.append(max(wanted)) or keep(folder, wanted))
    loop.fit(trainer, batches, rows, config, tmp_path / "whole", validate, ("rmse", False))
    steps = -(-rows // 64)
    assert saved == [*range(4, steps, 4), steps]
