"""What the outer loop does around the steps.

Early stopping, the weights that are kept, TensorBoard's figures.
"""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.worlds import write_1m
from tfrec.data.memory import MemoryInteractions
from tfrec.errors import Preempted, TfrecError, UsageError
from tfrec.experiments import loading, parts, run
from tfrec.experiments.config import make_config
from tfrec.layers import Embedding, dot
from tfrec.losses import BPR, SquaredError
from tfrec.models import MatrixFactorization, Recommender
from tfrec.optimizers import SGD, Adagrad
from tfrec.training import checkpoints, hooks, strategies
from tfrec.training.trainer import Trainer


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
        histograms=True,
        workdir=str(folder / "run"),
    )
    return config, run.train(config).record, folder / "run"


def events(workdir):
    found = EventAccumulator(str(workdir / "logs"), size_guidance={"tensors": 0})  # 0: all
    found.Reload()
    return found


def scalars(workdir):
    """{tag: [(step, value)]}."""
    found = events(workdir)
    tags = [
        tag
        for tag in found.Tags()["tensors"]
        if tag.startswith(("objective/", "train/", "validation/"))
    ]
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
    history = [value for _, value in scalars(workdir)["objective/validation_rmse"]]
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


def test_tensorboard_has_the_metrics_and_the_config(finished):
    workdir = finished[2]
    found = scalars(workdir)
    per_loop = {
        "objective/training_loss",
        "train/learning_rate",
        "train/rows_per_second",
        "train/gradient_norm",
    }
    assert per_loop | {"objective/validation_rmse", "validation/mae"} <= found.keys()
    for tag in per_loop:
        steps = [step for step, _ in found[tag]]
        assert np.diff(steps).max() <= 4
        assert all(np.isfinite(value) and value > 0 for _, value in found[tag])
    tags = set(events(workdir).Tags()["tensors"])
    assert {"users/table/factors", "users/table/bias", "mean", "recommendations"} <= tags
    text = events(workdir).Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "--model=mf" in text and "--split=user_temporal" in text


def test_without_validation_rows_the_last_weights_are_kept(finished, tmp_path):
    config = finished[0].replace(validation_fraction=0.0, epochs=3, workdir=str(tmp_path))
    result = run.train(config).record
    assert "validation" not in result
    assert (result["train"]["epochs"], result["train"]["best_epoch"]) == (3, 3)
    assert len(checkpoints.steps(tmp_path / "checkpoints")) == 1


def make_trainer(config, rate):
    """(trainer by plain SGD on the ratings as they are, split)."""
    split, config = loading.load(config)
    model = parts.make_model(split.train, config)
    settings = {"steps_per_loop": config.steps_per_loop, "batch_size": 64, "l2": 0.0}
    trainer = Trainer(model, SquaredError(target_scaling="none"), SGD(rate), **settings)
    return trainer, split


def fit(trainer, split, workdir, epochs, patience=0, others=()):
    """Trains with checkpoints."""
    own = [hooks.EarlyStopping(patience=patience), hooks.TensorBoard(workdir / "logs")]
    own += [*others, hooks.Checkpoints(workdir / "checkpoints")]
    return trainer.fit(split.train, split.validation, epochs, own)


def test_a_loss_that_is_not_finite_names_its_step_and_keeps_the_good_checkpoint(finished, tmp_path):
    config = finished[0]
    fit(*make_trainer(config, 0.01), tmp_path, 2)
    good = checkpoints.steps(tmp_path / "checkpoints")
    with pytest.raises(
        TfrecError,
        match=rf"the loss is not finite at step "
        rf"({good[-1] + 1}|{good[-1] + 2}|{good[-1] + 3}|{good[-1] + 4})\.",
    ):
        fit(*make_trainer(config, 1e9), tmp_path, 4)
    assert checkpoints.steps(tmp_path / "checkpoints") == good


class PowerCutError(Exception):
    pass


def test_a_long_epoch_is_saved_in_its_middle_and_goes_on_from_there(
    finished, tmp_path, monkeypatch
):
    """With a clock on which a minute passes at every look, every inner loop is saved."""
    config = finished[0]
    now = iter(range(0, 10**9, 100))
    monkeypatch.setattr(hooks.time, "monotonic", lambda: float(next(now)))
    ends, saved, keep = [], [], checkpoints.keep

    def train(workdir):
        tf.keras.utils.set_random_seed(0)
        trainer, split = make_trainer(config, 0.01)
        fit(trainer, split, workdir, 2)
        variables = trainer.steps.variables()
        ends.append({path: variable.numpy() for path, variable in variables.items()})
        return -(-len(split.train) // 64)

    def cut_at_the_sixth(folder, wanted):
        keep(folder, wanted)
        saved.append(max(wanted))
        if len(saved) == 4:
            raise PowerCutError

    steps = train(tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "keep", cut_at_the_sixth)
    with pytest.raises(PowerCutError):
        train(tmp_path / "cut")
    assert saved[-1] % steps, "the cut is in the middle of an epoch"
    state = checkpoints.state(tmp_path / "cut" / "checkpoints", saved[-1])
    assert state["visited"] == saved[-1] % steps * 64
    monkeypatch.setattr(strategies, "input_shards", lambda strategy: 2)
    monkeypatch.setattr(MemoryInteractions, "in_memory", False)
    with pytest.raises(
        TfrecError,
        match=r"on disk were cut among 1 machines, and would now be cut among 2\. Go on with as "
        r"many",
    ):
        train(tmp_path / "cut")
    monkeypatch.undo()
    train(tmp_path / "cut")
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
    trainer, split = make_trainer(finished[0], 0.01)
    fit(trainer, split, tmp_path, 1)
    fit(*make_trainer(finished[0], 0.01), tmp_path, 1)
    split.train = split.train.take(np.arange(len(split.train) - 1))
    with pytest.raises(TfrecError, match="the data have changed since this run began"):
        fit(make_trainer(finished[0], 0.01)[0], split, tmp_path, 2)


def test_any_validation_metric_decides(finished):
    """One that is known, one of one's own, and one that there is not."""
    trainer, split = make_trainer(finished[0], 0.01)
    stopping = hooks.EarlyStopping("recall@20", patience=1)
    progress = trainer.fit(split.train, split.validation, 3, [stopping])
    assert all("recall@20" in epoch for epoch in progress.history)

    def bias(predictions):
        return -abs(float(np.mean(predictions.scores - split.validation.rating)))

    stopping = hooks.EarlyStopping(bias, patience=3)
    progress = make_trainer(finished[0], 0.01)[0].fit(split.train, split.validation, 3, [stopping])
    values = [epoch["bias"] for epoch in progress.history]
    assert np.argmax(values) + 1 == progress.best_epoch
    with pytest.raises(UsageError, match=r"^metric=ndgc@10: expected one of .*ndcg@10\?$"):
        fit = make_trainer(finished[0], 0.01)[0].fit
        fit(split.train, split.validation, 1, [hooks.EarlyStopping("ndgc@10")])


def test_without_a_folder_the_best_weights_are_kept_in_memory(finished):
    config = finished[0]
    ends = []
    for epochs in (40, None):
        tf.keras.utils.set_random_seed(0)
        trainer, split = make_trainer(config, 0.2)
        if epochs:
            progress = trainer.fit(split.train, split.validation, epochs)
            assert progress.epoch == min(progress.best_epoch + 5, 40)
        else:
            trainer.fit(split.train, None, progress.best_epoch, [])
        ends.append({n: w.numpy() for n, w in trainer.model.named_weights().items()})
    trained = split.train.counts("user") > 0
    for path, value in ends[0].items():
        rows = trained if path == "users/table" else ...
        if path != "products/table":
            np.testing.assert_allclose(ends[1][path][rows], value[rows], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["default", "one_device", "mirrored"])
def test_a_loop_of_ones_own_makes_the_steps_of_fit(finished, strategy):
    """Global batches, cut among the replicas by the trainer."""
    config = finished[0].replace(strategy=strategy)
    made = strategies.make(config.get("strategy", "default"), config.get("virtual_devices", 0))
    split, config = loading.load(config)
    ends = []
    for own in (True, False):
        with made.scope():
            tf.keras.utils.set_random_seed(0)
            model = parts.make_model(split.train, config)
        trainer = Trainer(model, None, SGD(0.1), made, batch_size=64, cold_embeddings="keep")
        if own:
            batches = iter(split.train.batches_of(trainer.loss.batch_settings(64, 0)))
            losses = [
                float(trainer.step(*next(batches))) for _ in range(-(-len(split.train) // 64))
            ]
        else:
            progress = trainer.fit(split.train, epochs=1, hooks=[])
            assert progress.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        ends.append({n: w.numpy() for n, w in model.named_weights().items()})
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, rtol=1e-5, atol=1e-6, err_msg=path)


def small(finished, **settings):
    """A Trainer of a small model, and its data."""
    split, _ = loading.load(finished[0])
    model = MatrixFactorization.from_data(split.train, embedding_dim=2)
    return Trainer(model, batch_size=64, **settings), split


def test_a_trainer_fits_once(finished):
    """A second fit would go on at the end of the schedule, and fold implicit factors in twice."""
    trainer, split = small(finished)
    trainer.fit(split.train, epochs=1, hooks=[])
    with pytest.raises(UsageError, match=r"^fit: this Trainer has made \d+ steps already\. Make a"):
        trainer.fit(split.train, epochs=1, hooks=[])
    again = Trainer(trainer.model, batch_size=64)
    assert again.fit(split.train, epochs=1, hooks=[]).history


def test_what_implicit_factors_have_taken_in_stays_when_a_second_trainer_validates(finished):
    split, _ = loading.load(finished[0])
    model = MatrixFactorization.from_data(split.train, implicit_factors=("user",), embedding_dim=2)
    for _ in range(2):
        Trainer(model, batch_size=64).fit(split.train, split.validation, epochs=1)
        assert model.user_history.finalized


def test_many_trainers_in_a_process_warn_of_nothing(finished, caplog):
    """As a loop over settings in a notebook: each traces its steps once."""
    tf.get_logger().propagate = True
    for _ in range(7):
        trainer, split = small(finished)
        trainer.run(trainer.iterate(split.train), 2)
    tf.get_logger().propagate = False
    assert not [record.message for record in caplog.records if "retracing" in record.message]


def test_a_batch_of_another_size_is_refused(finished):
    trainer, split = small(finished)
    batch, y, weight = next(iter(split.train.batches(32)))
    with pytest.raises(UsageError, match=r"^batch: it has 32 rows, and batch_size is 64\.$"):
        trainer.step(batch, y, weight)


def test_a_schedule_without_an_end_is_refused(finished):
    trainer, split = small(finished, optimizer=SGD(0.1, schedule="cosine"))
    iterator = trainer.iterate(split.train)
    with pytest.raises(UsageError, match=r"^schedule=cosine: set trainer\.optimizer\.total_steps"):
        trainer.run(iterator, 2)
    trainer.optimizer.total_steps = 10
    assert float(trainer.run(iterator, 2)) > 0


def test_a_metric_that_the_rows_do_not_have_is_said(finished):
    trainer, split = small(finished)
    one_each = split.validation.take(
        np.unique(split.validation.user, return_index=True)[1]  # fcp compares a user's two rows
    )
    with pytest.raises(UsageError, match=r"^metric=fcp: the validation rows have none"):
        trainer.fit(split.train, one_each, epochs=1, hooks=[hooks.EarlyStopping("fcp")])


def test_a_metric_of_ones_own_that_is_no_number_is_said(finished):
    trainer, split = small(finished)

    def wrong(predictions):
        return float("nan")

    with pytest.raises(UsageError, match=r"^metric=wrong: it returned nan of the validation rows"):
        trainer.fit(split.train, split.validation, epochs=1, hooks=[hooks.EarlyStopping(wrong)])


def test_a_stop_without_checkpoints_does_not_say_that_it_saved(finished):
    trainer, split = small(finished)

    class Now(hooks.Hook):
        def after_loop(self, fit):
            fit.stop_requested = True

    with pytest.raises(Preempted, match=r"^told to stop \(SIGTERM\) and stopped "):
        trainer.fit(split.train, epochs=1, hooks=[Now()])


def test_the_loss_must_be_of_the_models_task(finished):
    split, config = loading.load(finished[0])
    model = parts.make_model(split.train, config)
    with pytest.raises(UsageError, match=r"^loss=BPR: it is a loss of the ranking task"):
        Trainer(model, BPR())


def test_losses_of_layers_are_trained_too(finished):
    class Regularized(Recommender):
        def __init__(self, train, settings):
            super().__init__(name="regularized")
            self.users = Embedding(train.num_users, 4, "user")
            self.products = Embedding(train.num_products, 4, "product")
            self.tower = tf.keras.Sequential(
                [tf.keras.layers.Dense(4, kernel_regularizer=tf.keras.regularizers.L2(10.0))]
            )

        def score(self, batch, products, training=False):
            return dot(self.tower(self.users(batch["user"])), self.products(products))

    split, _ = loading.load(finished[0])
    model = Regularized.from_data(split.train)
    before = np.linalg.norm(model.tower.layers[0].kernel)
    Trainer(model, None, SGD(0.01), l2=0.0).fit(split.train, epochs=2, hooks=[])
    assert np.linalg.norm(model.tower.layers[0].kernel) < 0.7 * before


def test_a_frozen_layer_stays(finished):
    split, config = loading.load(finished[0])
    model = parts.make_model(split.train, config)
    model.users.trainable = False
    trainer = Trainer(model, None, SGD(0.1), batch_size=64)
    steps = trainer.steps
    assert "users/table" not in steps.trainable
    before = {path: variable.numpy() for path, variable in steps.weights.items()}
    trainer.run(trainer.iterate(split.train), 3)
    moved = {
        path
        for path, variable in steps.weights.items()
        if not np.array_equal(variable.numpy(), before[path])
    }
    assert moved == steps.trainable.keys()


def test_the_padding_of_a_short_batch_does_not_change_the_step(finished):
    """30 rows in a batch of 30, 60 and 480: the same weights, with L2 and Adagrad."""
    split, config = loading.load(finished[0])
    ends = []
    for batch_size in (30, 60, 480):
        tf.keras.utils.set_random_seed(0)
        model = parts.make_model(split.train, config)
        optimizer = Adagrad(0.1, sparse_updates="always")
        trainer = Trainer(model, None, optimizer, batch_size=batch_size, l2=0.5)
        trainer.run(trainer.iterate(split.train.take(np.arange(30))), 5)
        ends.append({path: w.numpy() for path, w in trainer.steps.weights.items()})
    for end in ends[1:]:
        for path, value in ends[0].items():
            np.testing.assert_allclose(end[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
