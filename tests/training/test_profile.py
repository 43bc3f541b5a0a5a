"""--profile_steps: precisely these steps stand in the profile, and the training does not notice."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf.xplane_pb2 import (
    XSpace,
)  # TensorFlow ships the format without a public name

from tests.training.test_trainer import PowerCutError, make_trainer, scalars
from tests.training.test_trainer import fit as trainer_fit
from tests.worlds import write_1m
from tfrec.errors import TfrecError
from tfrec.experiments.config import make_config
from tfrec.training import checkpoints, hooks


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two epochs of twelve steps, in inner loops of eight and four."""
    folder = write_1m(tmp_path_factory.mktemp("world"))
    return make_config(
        dataset="1m",
        data_dir=str(folder),
        split="random",
        model="mf",
        embedding_dim=4,
        batch_size=64,
        epochs=2,
        early_stopping=0,
        steps_per_loop=8,
    )


def fit(config, workdir, rate=0.01, profile_steps=(), epochs=2):
    """-> (loss of each epoch, {path: weight})."""
    tf.keras.utils.set_random_seed(0)
    trainer, split = make_trainer(config, rate)
    assert -(-len(split.train) // 64) == 12
    profile = hooks.Profile(workdir / "logs", profile_steps)
    progress = trainer_fit(trainer, split, workdir, epochs, others=[profile])
    return progress.history, {
        path: variable.numpy() for path, variable in trainer.steps.variables().items()
    }


def profiled(workdir):
    """Number of steps in each profile of the run: how often the operation ran that counts them."""
    counts = []
    for path in sorted(workdir.glob("logs/plugins/profile/*/*.xplane.pb")):
        planes = XSpace.FromString(path.read_bytes()).planes
        names = [
            plane.event_metadata[event.metadata_id].name
            for plane in planes
            for line in plane.lines
            for event in line.events
        ]
        counts.append(names.count("while/body/_1/while/AssignAddVariableOp:AssignAddVariableOp"))
    return counts


@pytest.fixture(scope="module")
def plain(config, tmp_path_factory):
    """The run without a profile: (history, weights, workdir)."""
    workdir = tmp_path_factory.mktemp("plain")
    return *fit(config, workdir), workdir


@pytest.mark.parametrize(
    ("steps", "count"),
    [
        ((3, 5), 3),  # within an inner loop
        ((5, 10), 6),  # over the end of one
        ((9, 12), 4),  # a whole one, to the end of the epoch
        ((11, 15), 5),  # over the end of the epoch
        ((22, 999), 3),  # to the end of the run
    ],
)
def test_these_steps_are_profiled_and_nothing_else_changes(plain, config, tmp_path, steps, count):
    history, weights, workdir = plain
    profiled_history, profiled_weights = fit(config, tmp_path, profile_steps=steps)
    assert profiled(tmp_path) == [count]
    for path, value in weights.items():
        np.testing.assert_array_equal(profiled_weights[path], value, err_msg=path)
    for there, wanted in zip(profiled_history, history, strict=True):
        assert there == pytest.approx(wanted, rel=1e-6)
    for tag in ("objective/training_loss", "train/gradient_norm"):
        np.testing.assert_allclose(scalars(tmp_path)[tag], scalars(workdir)[tag], rtol=1e-5)


@pytest.mark.parametrize("steps", [(), (25, 30)])
def test_without_steps_or_past_the_end_there_is_no_profile(config, tmp_path, steps):
    fit(config, tmp_path, profile_steps=steps)
    assert profiled(tmp_path) == []


def test_what_was_profiled_before_a_cut_is_written_and_only_the_rest_after_it(
    config, tmp_path, monkeypatch
):
    """Cut after the first epoch, in the middle of the profile.

    The resumed run starts there, and once more beyond it.
    """
    keep = checkpoints.keep

    def cut(folder, wanted):
        keep(folder, wanted)
        raise PowerCutError

    monkeypatch.setattr(checkpoints, "keep", cut)
    with pytest.raises(PowerCutError):
        fit(config, tmp_path, profile_steps=(11, 15))
    assert profiled(tmp_path) == [2]
    (first,) = tmp_path.glob("logs/plugins/profile/*")
    first.rename(
        first.with_name("before")
    )  # its name is the second, in which the next one may be written too
    monkeypatch.undo()
    fit(config, tmp_path, profile_steps=(11, 15))
    assert sorted(profiled(tmp_path)) == [2, 3]
    fit(config, tmp_path, profile_steps=(11, 15), epochs=3)
    assert sorted(profiled(tmp_path)) == [2, 3]


def test_a_process_that_is_not_the_chief_cuts_its_steps_alike_and_writes_nothing(tmp_path):
    """Steps that are in step with those of others need the same graph."""

    def counting(made):
        def run(_, done, count):
            made.append(count)
            return 0.0, 0.0

        return run

    cuts: dict[bool, list[int]] = {True: [], False: []}
    for is_chief, made in cuts.items():
        profile = hooks.Profile(tmp_path / str(is_chief), (3, 5))
        profile.begin(SimpleNamespace(is_chief=is_chief))
        run = profile.wrap(counting(made))
        for done in (0, 4, 8):
            run(iter(()), done, 4)
        profile.close()
    assert cuts[True] == cuts[False] == [2, 2, 1, 3, 4]
    assert list(tmp_path.rglob("*.xplane.pb")) and not (tmp_path / "False").exists()


def test_a_diverging_run_is_profiled_to_its_last_step(config, tmp_path):
    with pytest.raises(TfrecError, match=r"the loss is not finite at step [2-7]\."):
        fit(config, tmp_path, rate=1e9, profile_steps=(2, 20))
    assert len(profiled(tmp_path)) == 1
    tf.profiler.experimental.start(str(tmp_path))  # no other one runs any more
    tf.profiler.experimental.stop(save=False)
