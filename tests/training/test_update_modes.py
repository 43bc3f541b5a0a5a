"""A table may take another mode from one run to the next (another strategy, other shards).

Training goes on as if nothing had changed.
"""

import threading

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, prepared_loss, replace
from tests.training.test_optimizers import RATE, apply, lookup, mirrored
from tests.worlds import write_1m
from tfrec import layers, losses, models
from tfrec.experiments import parts, run
from tfrec.experiments.config import make_config
from tfrec.experiments.tables import OPTIMIZERS
from tfrec.optimizers import sums, updates
from tfrec.training import checkpoints
from tfrec.training import trainer as trainer_module
from tfrec.training.trainer import Trainer

LATE = ("momentum", "adam", "adamw")
SHAPE = (6, 3)


def start(name: str, sparse_updates: str, state: dict | None = None):
    """An optimizer and its table, from the values of another one's."""
    variables = {"table": tf.Variable(state["table"] if state else np.ones(SHAPE, np.float32))}
    optimizer = OPTIMIZERS[name](RATE, sparse_updates=sparse_updates)
    optimizer.build(variables)
    for slot, variable in optimizer.variables().items():
        variable.assign(state[slot] if state else variable)
    return optimizer, variables


def walk(optimizer, variables, steps, first: int) -> dict:
    for step, (ids, values) in enumerate(steps, first):
        apply(optimizer, {"table": lookup(ids, values)}, variables, step)
    optimizer.mark_dense(tf.constant(first + len(steps), tf.int64))
    return {
        path: variable.numpy() for path, variable in (variables | optimizer.variables()).items()
    }


def steps_of(lists, seed=0):
    random = np.random.RandomState(seed)
    return [(ids, random.normal(size=(len(ids), SHAPE[1])).astype(np.float32)) for ids in lists]


@pytest.mark.parametrize("name", LATE)
def test_from_dense_to_sparse(name):
    every = steps_of([range(6)] * 8)
    dense = walk(*start(name, "auto"), every, 0)
    begun = walk(*start(name, "auto"), every[:5], 0)
    gone_on = walk(*start(name, "always", begun), every[5:], 5)
    for path, value in dense.items():
        np.testing.assert_allclose(gone_on[path], value, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", LATE)
def test_from_sparse_to_dense(name):
    """Rows that were left behind are where they would be, had the next step touched them in the
    sparse mode.
    """
    some, last = steps_of([[0, 1, 2, 3, 4, 5], [0, 2], [2, 3], [2]]), steps_of([range(6)], 1)
    begun = walk(*start(name, "always"), some, 0)
    sparse = walk(*start(name, "always", begun), last, 4)
    optimizer, variables = start(name, "auto", begun)
    optimizer.modes["table"] = "dense"
    optimizer.catch_up(variables, tf.constant(4, tf.int64))
    dense = walk(optimizer, variables, last, 4)
    for path, value in sparse.items():
        np.testing.assert_allclose(dense[path], value, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("small", [(20_000, 0), (0, 20_000)], ids=["dense first", "sparse first"])
def test_over_a_checkpoint(optimizer, small, tmp_path, monkeypatch):
    """Each step touches all rows, so that both modes are exact.

    A run that changes them ends in the weights of one that does not.
    """
    world = write_1m(tmp_path / "world", 12, 10, 100)
    monkeypatch.setattr(updates, "DENSE_BELOW", 0)
    made = make_config(
        dataset="1m",
        data_dir=str(world),
        model="mf",
        embedding_dim=4,
        batch_size=512,
        split="random",
        optimizer=optimizer,
        validation_fraction=0.0,
        learning_rate=0.01,
        epochs=12,
        early_stopping=0,
    )
    keep, ends = checkpoints.keep, []

    def cut(folder, wanted):
        keep(folder, wanted)
        if max(wanted) == 6:
            raise KeyboardInterrupt

    def fit(folder):
        run.Run.begin(made.replace(workdir=str(folder))).fit(folder)

    for name, (first, then) in (("same", (small[1], small[1])), ("other", small)):
        monkeypatch.setattr(updates, "SMALL", first)
        monkeypatch.setattr(checkpoints, "keep", cut)
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / name)
        monkeypatch.setattr(updates, "SMALL", then)
        monkeypatch.setattr(checkpoints, "keep", keep)
        fit(tmp_path / name)
        ends.append(checkpoints.weights(tmp_path / name / "checkpoints", 12))
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, rtol=1e-4, atol=1e-6, err_msg=path)


@pytest.mark.parametrize("name", ("mf", "hybrid"))
def test_the_mode_is_a_function_of_the_global_batch(name, monkeypatch):
    """A pool that the replicas share counts once, however many they are; and the weights agree."""
    monkeypatch.setattr(updates, "SMALL", 0)
    monkeypatch.setattr(layers.features, "NARROW", 0)
    dataset = make_dataset(num_users=200, num_products=60, rows=400)
    dataset = replace(dataset, features=np.eye(60))
    ends = []
    for settings in ({"shared_negatives": 5}, {"loss": "in_batch_softmax"}):
        config = make_config(
            model=name,
            task="ranking",
            embedding_dim=4,
            batch_size=8,
            **({"loss": "sigmoid"} | settings | ({"id_dropout": 0.0} if name == "hybrid" else {})),
        )
        for make in (tf.distribute.get_strategy, mirrored):
            strategy = make()
            with strategy.scope():
                tf.keras.utils.set_random_seed(0)
                model = parts.make_model(dataset.interactions, config)
                loss = prepared_loss(config, dataset.interactions)
            optimizer = OPTIMIZERS["momentum"](0.1)
            trainer = Trainer(model, loss, optimizer, strategy, batch_size=8, l2=0.1)
            trainer.run(trainer.iterate(dataset.interactions), 30)
            weights = {
                path: tf.convert_to_tensor(variable).numpy()
                for path, variable in trainer.steps.weights.items()
            }
            ends.append((dict(optimizer.modes), weights))
    lookups = 8 + 5
    assert (
        updates.DENSE_BELOW * lookups <= 60 < updates.DENSE_BELOW * 2 * (4 + 5)
    )  # where replicas count makes a difference
    for (modes, one), (modes_of_two, two) in (ends[:2], ends[2:]):
        assert modes == modes_of_two
        assert set(modes.values()) == {"dense", "sparse"}
        for path, value in one.items():
            np.testing.assert_allclose(two[path], value, atol=1e-5, err_msg=path)
    for path in ("products/table", "of_features/kernel")[: 1 + (name == "hybrid")]:
        assert ends[0][0][path] == "sparse" and ends[2][0][path] == "dense"


@pytest.mark.parametrize("mode", ["sparse", "dense"])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_what_another_worker_has_half_written_moves_no_row_far(name, mode):
    """Its first moment is there, its second is not: dividing by epsilon would move rows by 20."""
    optimizer, variables = start(name, "always" if mode == "sparse" else "auto")
    optimizer.in_step, table = False, variables["table"]
    slots, now = optimizer.state["table"], optimizer.now(tf.constant(5, tf.int64))
    slots["m"].assign(tf.fill(SHAPE, 1e-3))
    if mode == "sparse":
        rows, gradient = tf.constant([1, 3]), tf.zeros([2, SHAPE[1]])
        moved = optimizer.sparse(tf.gather(table, rows), gradient, rows, slots, now)
    else:
        optimizer.dense(table, tf.zeros(SHAPE), slots, now)
        moved = table
    assert np.abs(moved - 1).max() < 100 * RATE


def test_workers_that_are_not_in_step_lose_no_movement():
    """Two threads that read a row, move it and write it."""
    table, optimizer = (
        tf.Variable(np.zeros((4, 8), np.float32)),
        OPTIMIZERS["sgd"](RATE),
    )
    optimizer.in_step, count = False, 300

    @tf.function
    def worker():
        for _ in tf.range(count):
            rows = tf.constant([1, 3])
            before = updates.lookup(table, rows)
            optimizer.scatter_rows(table, rows, before + 1, before)

    worker.get_concrete_function()
    threads = [threading.Thread(target=worker) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.numpy()[[1, 3]].min() > 0.9 * 2 * count  # writing whole rows keeps about a half
    assert not table.numpy()[[0, 2]].any()


@pytest.mark.parametrize("task", ["rating", "ranking"])
@pytest.mark.parametrize("name", ["mf", "ncf", "hybrid"])
def test_ordered_batches_train_as_others(name, task, monkeypatch):
    """Sums by the order that a batch tells are those of a search, in both modes."""
    train, ends = make_dataset(300, 80, rows=600).interactions, []
    monkeypatch.setattr(updates, "SMALL", 0)
    monkeypatch.setattr(trainer_module, "ORDERED_FROM", 1)
    known, found = updates.order_of, []

    def noted(gradient, lookups):
        found.append(known(gradient, lookups))
        return found[-1]

    for order_of in (noted, lambda *_: None):
        monkeypatch.setattr(updates, "order_of", order_of)
        of_task = {"loss": "sigmoid"} if task == "ranking" else {}
        of_model = {"dropout": 0.0} if name == "ncf" else {}
        config = make_config(model=name, task=task, batch_size=16, l2=0.1, **of_task, **of_model)
        model = parts.make_trained(train, config)
        trainer = parts.make_trainer(tf.distribute.get_strategy(), model, config)
        trainer.run(trainer.iterate(train), 40)
        modes = trainer.optimizer.modes
        assert modes["users/table"] == "sparse"
        assert modes["products/table"] == ("sparse" if task == "rating" else "dense")
        ends.append({path: weight.numpy() for path, weight in trainer.steps.weights.items()})
    assert sum(order is not None for order in found) >= 2
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, rtol=1e-4, atol=1e-5, err_msg=path)


class Reversed(losses.BPR):
    """Its negatives are those that were drawn, the other way round."""

    def choose(self, model, batch):
        return batch | {"negatives": tf.reverse(batch["negatives"], [1])}


class Fewer(losses.BPR):
    """It learns from half of the negatives."""

    def choose(self, model, batch):
        return batch | {"negatives": batch["negatives"][:, :2]}


@pytest.mark.parametrize("loss", [Reversed, Fewer])
def test_a_loss_that_chooses_among_negatives_is_summed_by_what_it_chose(loss, monkeypatch):
    train, ends = make_dataset(300, 80, rows=600).interactions, []
    for ordered_from in (1, 10**9):
        monkeypatch.setattr(trainer_module, "ORDERED_FROM", ordered_from)
        made = {"task": "ranking", "embedding_dim": 4, "biases": False, "similarity": "dot"}
        model = models.MatrixFactorization.from_data(train, **made)
        adam = OPTIMIZERS["adam"](0.01, sparse_updates="always")
        trainer = Trainer(model, loss(negatives=4), adam, batch_size=16)
        trainer.run(trainer.iterate(train), 20)
        ends.append({path: weight.numpy() for path, weight in trainer.steps.weights.items()})
    for path, value in ends[0].items():
        np.testing.assert_allclose(ends[1][path], value, atol=1e-5, err_msg=path)


def test_an_order_is_that_of_the_same_ids_laid_alike():
    """Products and then negatives are not each product with its negatives."""

    @tf.function
    def found(products, negatives):
        one = tf.expand_dims(products, 1)
        lookup = layers.Lookup(
            tf.concat([one, negatives], 1), tf.ones([4, 3]), order=layers.Order(tf.zeros([12]))
        )
        rows = tf.concat([tf.reshape(products, [1, -1]), tf.reshape(negatives, [1, -1])], 1)
        kinds = rows, tf.concat([one, negatives], axis=1), products
        gradients = [tf.IndexedSlices(tf.zeros([12, 2]), tf.reshape(ids, [-1])) for ids in kinds]
        orders = [sums.order_of(each, [lookup]) for each in gradients]
        assert [order is not None for order in orders] == [False, True, False]
        return products

    found(tf.range(4), tf.zeros([4, 2], tf.int32))


def test_products_of_rows_that_are_spread_have_gradients_of_their_shapes():
    for x, z in (([1, 3], [4, 1, 3]), ([4, 3], [1, 1, 3]), ([4, 3], [4, 1, 3])):
        with tf.GradientTape() as tape:
            both = tf.Variable(tf.ones(x)), tf.Variable(tf.ones(z))
            total = tf.reduce_sum(layers.dot(both[0] + 0, both[1] + 0))
        assert [gradient.shape.as_list() for gradient in tape.gradient(total, both)] == [x, z]
