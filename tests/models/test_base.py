import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset
from tfrec.errors import UsageError
from tfrec.experiments import config
from tfrec.layers import Embedding, dot
from tfrec.models import Content, Hybrid, NeuralCF, Recommender
from tfrec.optimizers import SGD
from tfrec.training.trainer import Trainer


class Nested(Recommender):
    """Layers in a list, a dict, a Sequential and a private attribute."""

    def __init__(self, train, settings):
        super().__init__(name="nested")
        self.kept = Embedding(3, {"factors": 2}, "user")
        self.by_name = {"other": Embedding(3, 2, "product")}
        self.towers = [tf.keras.Sequential([tf.keras.layers.Dense(4), tf.keras.layers.Dense(2)])]
        self._hidden = tf.keras.layers.Dense(2, use_bias=False)

    def score(self, batch, products, training=False):
        x = self.towers[0](self.kept(batch["user"])["factors"])
        return dot(self._hidden(x), self.by_name["other"](products))


def test_weights_are_named_by_attributes():
    model = NeuralCF.from_data(make_dataset().interactions)
    assert {"users/table", "mlp/hidden/kernel", "mean", "head/bias"} <= model.named_weights().keys()


def test_weights_are_found_wherever_they_are_kept():
    model = Nested.from_data(make_dataset(num_users=3, num_products=3, rows=9).interactions)
    paths = set(model.named_weights())
    assert len(paths) == len(model.weights) == 7
    assert {"kept/table", "by_name/other/table", "towers/0/0/kernel", "towers/0/1/bias"} < paths
    assert model.embeddings("user").keys() == {"kept"}
    assert model.embeddings("product").keys() == {"by_name/other"}


def test_untrained_rows_become_the_average_one():
    model = Hybrid.from_data(make_dataset().interactions)
    before = {
        path: table.table.numpy()
        for side in ("user", "product")
        for path, table in model.embeddings(side).items()
    }
    assert before.keys() == {"users", "products"}
    weights = {
        "user": np.arange(12) % 3 > 0,
        "product": (np.arange(9) - 4.0) ** 2,
    }  # all alike, and some more than others
    model.impute_cold_embeddings(weights["user"], weights["product"])
    for side, weight in weights.items():
        for path, table in model.embeddings(side).items():
            after, trained = table.table.numpy(), weight > 0
            np.testing.assert_array_equal(after[trained], before[path][trained])
            mean = np.average(before[path], axis=0, weights=weight)
            np.testing.assert_allclose(
                after[~trained], np.broadcast_to(mean, after[~trained].shape), rtol=1e-5, atol=1e-7
            )


def test_reading_other_users_in_its_scope():
    model = NeuralCF.from_data(make_dataset().interactions)
    rows = {
        path: tf.gather(table.table.value, [7, 2])
        for path, table in model.embeddings("user").items()
    }
    with model.override_embeddings(rows):
        inside = model.score_all({"user": tf.constant([0, 1])})
    np.testing.assert_allclose(inside, model.score_all({"user": tf.constant([7, 2])}), rtol=1e-6)


def test_reading_a_table_by_its_parts_in_its_scope():
    model = NeuralCF.from_data(make_dataset().interactions)
    batch, table = {"user": tf.constant([7, 2])}, model.products
    scores = model.score_all(batch), model.score_candidates(batch, tf.constant([[1], [3]]))
    rows = dict(zip(table.widths, table.split(tf.identity(table.table.value))))
    table.table.assign(tf.zeros_like(table.table))
    with pytest.raises(ZeroDivisionError), model.override_embeddings({"products": rows}):
        np.testing.assert_array_equal(model.score_all(batch), scores[0])
        np.testing.assert_array_equal(
            model.score_candidates(batch, tf.constant([[1], [3]])), scores[1]
        )
        raise ZeroDivisionError
    assert table.override is None
    assert np.abs(model.score_all(batch) - scores[0]).max() > 1e-4


def test_a_task_that_makes_no_sense_is_refused():
    with pytest.raises(
        UsageError, match="model=content --task=rating: content only does --task=ranking"
    ):
        config.model_class("content", "rating")
    with pytest.raises(UsageError, match="task=rating: Content does only ranking"):
        Content.from_data(make_dataset().interactions, "rating")


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(
        UsageError, match=r"^model=nfc: expected one of popularity, .*\. Did you mean ncf\?"
    ):
        config.model_class("nfc", "rating")


def test_a_lookup_has_a_sparse_gradient():
    table = Embedding(5, {"factors": 2, "bias": 1}, "user")
    with tf.GradientTape() as tape:
        rows = table(tf.constant([1, 1, 4]))
        total = tf.reduce_sum(rows["factors"]) + tf.reduce_sum(rows["bias"])
    gradient = tape.gradient(total, table.table.value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert gradient.indices.numpy().tolist() == [1, 1, 4]


class Dropped(Recommender):
    """A Sequential with dropout, a list, and a weight of the model's own."""

    def __init__(self, train, settings):
        super().__init__(name="dropped")
        self.users = Embedding(train.num_users, {"factors": 3, "bias": 1}, "user")
        self.products = Embedding(train.num_products, 3, "product")
        self.tower = tf.keras.Sequential(
            [tf.keras.layers.Dense(3), tf.keras.layers.Dropout(0.5), tf.keras.layers.Dense(3)]
        )

    def score(self, batch, products, training=False):
        user = self.users(batch["user"])
        x = self.tower(user["factors"], training=training)
        return dot(x, self.products(products)) + user["bias"][:, None]


def test_initial_weights_come_from_the_seed_and_their_path_and_from_nothing_else():
    rows = make_dataset().interactions
    first = Dropped.from_data(rows, seed=3).named_weights()
    tf.random.set_seed(1)
    Dropped.from_data(rows, seed=4)  # draws whatever it likes
    again, other = (Dropped.from_data(rows, seed=seed).named_weights() for seed in (3, 4))
    for path, weight in first.items():
        np.testing.assert_array_equal(weight, again[path])
        random = "bias" not in path
        assert (np.asarray(weight) != np.asarray(other[path])).any() == random, path
    table = first["users/table"].numpy()
    assert (table[:, 3] == 0).all() and 0.02 < np.abs(table[:, :3]).max() <= 0.05
    assert (
        len({weight.numpy().ravel()[0] for path, weight in first.items() if "table" in path}) == 2
    )


def test_dropout_is_a_function_of_the_seed_and_the_step():
    """A loop that begins at step 3 draws what one that came there draws."""
    rows = make_dataset().interactions
    batch, y, weight = next(iter(rows.batches(16)))
    losses = []
    for skipped in (0, 3):
        model = Dropped.from_data(rows)
        trainer = Trainer(model, optimizer=SGD(0.0), batch_size=16)
        trainer.steps.step.assign(skipped)
        losses.append([float(trainer.step(batch, y, weight)) for _ in range(6 - skipped)])
    assert losses[0][3:] == losses[1]
    assert len(set(losses[0])) == 6
