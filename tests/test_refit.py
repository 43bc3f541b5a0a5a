"""The model that is tested and exported is trained anew on training and validation rows."""

import weakref

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, some_config
from tests.worlds import write_1m
from tfrec.data.interactions import Split
from tfrec.data.memory import MemoryInteractions
from tfrec.errors import UsageError
from tfrec.experiments import finished, loading, parts, report, run, workdirs
from tfrec.experiments.exported import ExportedModel
from tfrec.experiments.run import Run
from tfrec.system import sealed
from tfrec.system.text import number
from tfrec.training import hooks
from tfrec.training.state import finalize

THREE = {"early_stopping": 0, "epochs": 3, "refit": "all"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return str(write_1m(tmp_path_factory.mktemp("world")))


def config(world, workdir, **changes):
    small = {"model": "mf", "embedding_dim": 4, "batch_size": 128, "epochs": 4}
    small |= {"early_stopping": 1, "refit": "validation"}
    return some_config(dataset="1m", data_dir=world, workdir=str(workdir), **(small | changes))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    return run.train(config(world, tmp_path_factory.mktemp("whole"), **THREE))


def weights(of: Run) -> dict[str, np.ndarray]:
    return {path: weight.numpy() for path, weight in of.model.named_weights().items()}


def same_weights(one, other):
    assert one.keys() == other.keys()
    for path in one:
        np.testing.assert_allclose(one[path], other[path], atol=1e-6, err_msg=path)


def by_hand(world, settings, epochs):
    """Trained on all but the test rows, with a Trainer."""
    split, _ = loading.load(settings)
    train, validation, test = split.parts()
    rows = {n: np.concatenate([c, validation.all_columns[n]]) for n, c in train.all_columns.items()}
    merged = MemoryInteractions(split.catalog, rows)
    merged.cold_shares = {side: split._cold_share(side) for side in ("user", "product")}
    split = Split(merged, test.take(test.user < 0), test)
    model = parts.make_trained(split.train, settings)
    trainer = parts.make_trainer(tf.distribute.get_strategy(), model, settings)
    trainer.optimizer.total_steps = settings.epochs * -(-len(split.train) // settings.batch_size)
    iterator = trainer.iterate(split.train)
    trainer.run(iterator, epochs * -(-len(split.train) // settings.batch_size))
    finalize(model, split, settings.cold_embeddings)
    return {path: weight.numpy() for path, weight in model.named_weights().items()}


def test_it_trains_for_the_epochs_found_on_all_rows_but_those_tested(world, tmp_path, monkeypatch):
    alive, make = [], parts.make_trained

    def watched(train, settings):
        assert all(reference() is None for reference in alive)  # two large models may not fit
        model = make(train, settings)
        alive[:] = [weakref.ref(model)]
        return model

    monkeypatch.setattr(parts, "make_trained", watched)
    settings = config(world, tmp_path, schedule="cosine", epochs=30, learning_rate=0.1, l2=0.0)
    made = run.train(settings)
    assert alive
    monkeypatch.undo()
    record, (train, validation, test) = made.record, loading.load(settings)[0].parts()
    epochs = record["train"]["best_epoch"]
    assert 1 <= epochs < record["train"]["epochs"]  # else the last epoch would do as well
    assert record["refit"].keys() == {"rows", "epochs", "seconds"}
    assert record["refit"]["epochs"] == epochs
    assert record["refit"]["rows"] == len(train) + len(validation) == len(made.split.train)
    assert made.split.test.fingerprint == test.fingerprint
    same_weights(weights(made), by_hand(world, settings, epochs))
    same_weights(weights(Run.open(tmp_path)), weights(made))
    again = Run.open(tmp_path).evaluate()[0]["test"]
    assert again["rmse"] == pytest.approx(record["test"]["rmse"], rel=1e-6)


def test_without_it_the_model_of_the_training_rows_is_tested(world, tmp_path):
    made = [run.train(config(world, tmp_path / how, refit=how)) for how in ("none", "validation")]
    records = [each.record for each in made]
    assert "refit" not in records[0] and not (tmp_path / "none" / "refit").exists()
    # the rows that validate judge the same model
    assert records[0]["validation"] == records[1]["validation"]
    assert records[0]["test"] != records[1]["test"]
    assert records[0]["history"] == records[1]["history"]
    with pytest.raises(UsageError, match="what the first model made of them"):
        made[1].validator()
    table, again = report.table(records[1]), records[1]["refit"]
    assert f"trained anew for {number(again['epochs'], 'epoch')} on 774 rows" in table
    assert table.endswith(f"fitted in {records[1]['train']['seconds'] + again['seconds']:.1f} s")


def test_a_closed_form_is_fitted_to_all_rows(world, tmp_path):
    ease = {"model": "ease", "task": "ranking", "ease_l2": 10.0, "recency": 2.0}
    made = run.train(config(world, tmp_path / "a", **ease))
    without = config(world, tmp_path / "b", **ease).replace(validation_fraction=0.0)
    assert made.record["test"] == run.train(without).record["test"]
    assert made.record["refit"]["rows"] == len(made.split.train)
    assert Run.open(tmp_path / "a").evaluate()[0]["test"] == made.record["test"]


@pytest.mark.parametrize("stage", ("refit", "refit_all"))
def test_a_run_that_stopped_anywhere_ends_as_one_that_did_not(
    world, whole, tmp_path, stage, monkeypatch
):
    settings, stopped = config(world, tmp_path / "run", **THREE), []
    after_epoch = hooks.Checkpoints.after_epoch

    def stop(self, fit):
        after_epoch(self, fit)
        if self.folder.name == stage and fit.progress.epoch == 2 and not stopped:
            stopped.append(stage)
            raise KeyboardInterrupt

    monkeypatch.setattr(hooks.Checkpoints, "after_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(settings)
    again = run.train(settings)
    assert stopped == [stage]
    same_weights(weights(again), weights(whole))
    assert again.record["validation"] == whole.record["validation"]
    assert again.record["test"]["rmse"] == pytest.approx(whole.record["test"]["rmse"], rel=1e-6)


def test_the_share_of_cold_rows_is_that_of_the_validation_rows():
    rows = make_dataset().interactions
    split = Split(rows.take(rows.user < 5), rows.take(rows.user >= 5), rows.take(rows.user < 0))
    again = split.refitted("validation")
    assert len(again.train) == len(rows) and not len(again.validation)
    assert again.train.cold_shares == {"user": 1.0, "product": split._cold_share("product")}
    weight, counts = again.cold_weights("user"), again.train.counts("user")
    np.testing.assert_allclose(weight, counts / counts.sum())


def test_rows_that_are_no_likes_are_not_trained_on(world, tmp_path):
    given = {"loss": "bpr", "positive_from": 4.0, "explicit_negatives": True}
    settings = config(world, tmp_path, task="ranking", **given)
    split, _ = loading.load(settings)
    assert (split.validation.rating < 4).any()
    again = split.refitted("validation", 4.0)
    liked = np.concatenate([split.train.rating, split.validation.rating])
    np.testing.assert_array_equal(again.train.rating, liked[liked >= 4])
    others = np.concatenate([split.train.disliked.rating, split.validation.rating])
    np.testing.assert_array_equal(again.train.disliked.rating, others[others < 4])
    made = run.train(settings)
    assert made.record["refit"]["rows"] == len(again.train)
    assert (made.split.train.rating >= 4).all()


def test_a_run_of_before_is_one_without_a_refit(world, tmp_path):
    """Its flag file has no such line."""
    settings = config(world, tmp_path, refit="none")
    record = run.train(settings).record
    lines = (tmp_path / "config.flags").read_text().splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith(("--refit", "#"))]
    (tmp_path / "config.flags").write_text(sealed.seal("".join(lines)))
    assert workdirs.settings(tmp_path).refit == "none"
    opened = Run.open(tmp_path)
    assert opened.evaluate()[0]["test"]["rmse"] == pytest.approx(record["test"]["rmse"], rel=1e-6)
    assert run.train(settings).record["test"] == record["test"]
    with pytest.raises(UsageError, match="holds a run with another refit"):
        run.train(config(world, tmp_path))


@pytest.mark.parametrize(
    ("model", "given", "new"),
    [
        ("hybrid", {"similarity": "dot", "id_dropout": 0.0}, ("--similarity", "--id_dropout")),
        ("ncf", {"mlp_layers": (2,), "dropout": 0.0}, ("--mlp_layers", "--dropout")),
    ],
)
def test_a_ranking_of_before_is_opened_with_the_defaults_that_it_had(
    model, given, new, world, tmp_path
):
    settings = config(world, tmp_path, model=model, task="ranking", refit="none", **given)
    record = run.train(settings).record
    lines = (tmp_path / "config.flags").read_text().splitlines(keepends=True)
    lines = [line for line in lines if not line.startswith((*new, "#"))]
    (tmp_path / "config.flags").write_text(sealed.seal("".join(lines)))
    found = Run.open(tmp_path).evaluate()[0]["test"]
    assert found["ndcg@10"] == pytest.approx(record["test"]["ndcg@10"], rel=1e-6)


def test_all_rows_train_the_model_that_is_exported(world, whole, tmp_path):
    before = run.train(config(world, tmp_path, **(THREE | {"refit": "validation"})))
    record, folder = whole.record, whole.folder
    assert record["test"] == before.record["test"]  # of the model before
    assert record["refit_all"]["rows"] == 1_000 == len(whole.split.train)
    assert report.table(record).endswith("exported: a model trained once more, on all 1,000 rows")
    opened = Run.open(folder)
    same_weights(weights(opened), weights(whole))
    tables = [weights(each)["users/table"] for each in (whole, before)]
    assert np.abs(tables[0] - tables[1]).max() > 0.01
    server, catalog = tf.saved_model.load(str(folder / "export")), opened.split.catalog
    tested = before.split.test.take(np.arange(9))
    ids = catalog.user_ids[tested.user], catalog.product_ids[tested.product]
    answered = server.score(*ids, np.zeros((0, 2), np.float32), np.zeros(0, np.int64))["rating"]
    batch = {"user": tf.constant(tested.user), "product": tf.constant(tested.product)}
    scores = opened.model.output(opened.model(batch), batch["product"]).numpy()
    scores = np.clip(scores, *opened.split.train.stats.range)
    np.testing.assert_allclose(answered.numpy(), scores, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match="the run has seen all of its test rows"):
        finished.evaluate(folder, {})
    said = ExportedModel(folder).for_user(str(ids[0][0]), 3)
    assert "held out" not in said and "changed" not in said
