"""The objective of training.

(1 / B) sum over rows of weight x (loss + l2 |what the row reads|^2), against autodiff on whole
tables.
"""

import numpy as np
import pytest
import tensorflow as tf

from tests.conftest import make_dataset, prepared_loss, replace, some_config
from tfrec.experiments import parts
from tfrec.layers import Embedding, ImplicitFactors
from tfrec.optimizers import SGD
from tfrec.training.trainer import Trainer

RATE, L2, BATCH = 0.1, 0.3, 8
RANKING = {"task": "ranking", "negatives": 3}
CASES = {
    "mf": {"model": "mf"},
    "mf implicit factors": {"model": "mf", "implicit_factors": ("user", "product")},
    "ncf": {"model": "ncf"},
    "hybrid": {
        "model": "hybrid",
        "terms": (
            "bias",
            "user_day_bias",
            "feature_factors",
            "user_history",
            "product_history",
            "features",
        ),
    },
    "sigmoid": {"model": "ncf", "loss": "sigmoid", "dropout": 0.0, **RANKING},
    "weighed": {"model": "mf", "confidence_power": 2.0, **RANKING},
    "bpr": {"model": "hybrid", "loss": "bpr", "id_dropout": 0.0, **RANKING},
    "softmax": {"model": "hybrid", "id_dropout": 0.0, **RANKING, "negatives": 0},
    "shared": {
        "model": "mf",
        "loss": "sigmoid",
        "shared_negatives": 5,
        "exclude_positives": True,
        **RANKING,
    },
    "shared implicit factors": {
        "model": "mf",
        "loss": "sigmoid",
        "shared_negatives": 5,
        "exclude_positives": True,
        "implicit_factors": ("product",),
        **RANKING,
    },
    "in batch": {"model": "mf", "loss": "in_batch_softmax", **RANKING},
    "hard": {"model": "mf", "loss": "bpr", "hard_negatives": 6, **RANKING},
}


def make(name: str, sparse_updates: str = "auto", l2: float = L2, batch_size: int = BATCH):
    """A trainer by plain SGD, and an iterator of its batches.

    The last batch of an epoch is padded.
    """
    dataset = make_dataset(user_features=2)
    dataset = replace(dataset, timestamp=dataset.interactions.timestamp // 10 * 86_400)
    config = some_config(embedding_dim=4, batch_size=batch_size, **CASES[name])
    rows = dataset.interactions.take(np.arange(0, 60, 2))
    tf.keras.utils.set_random_seed(0)
    model, loss = parts.make_model(rows, config), prepared_loss(config, rows)
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(0.5 * tf.random.stateless_normal(weight.shape, [i, 0]))
    optimizer = SGD(RATE, sparse_updates=sparse_updates)
    trainer = Trainer(model, loss, optimizer, batch_size=batch_size, l2=l2)
    return trainer, rows.batches_of(loss.batch_settings(batch_size, 0)).dataset()


def penalty(trainer: Trainer, batch: dict, weight: tf.Tensor) -> tf.Tensor:
    """Sum over the rows of the batch of weight |what the row reads|^2, one row and one product
    after the other.
    """
    model, loss, total = trainer.model, trainer.loss, 0.0
    of_product, of_negatives = getattr(loss, "shares", (1.0, 0.0))
    for b in range(len(weight)):
        user, product = int(batch["user"][b]), int(batch["product"][b])
        read = [(product, of_product)]
        if "negatives" in batch:
            mine = (
                batch["negatives"] if batch["negatives"].shape.rank == 1 else batch["negatives"][b]
            )
            share = np.ones(len(mine))
            if "negative_weight" in batch:
                share = batch["negative_weight"].numpy()
                share = share if share.ndim == 1 else share[b]
            read += [(int(p), of_negatives * s / share.sum()) for p, s in zip(mine, share)]
        for name, layer in vars(model).items():
            if not isinstance(layer, Embedding | ImplicitFactors):
                continue
            table = tf.convert_to_tensor(layer.table.value)
            if isinstance(layer, Embedding):
                table = table * np.concatenate(
                    [np.full(w, part != "bias") for part, w in layer.widths.items()]
                ).astype(np.float32)
                rows = [(user, 1.0)] if name == "users" else read
                total += sum(
                    weight[b] * share * tf.reduce_sum(table[row] ** 2) for row, share in rows
                )
                continue
            for owner, share in [(user, 1.0)] if layer.side == "user" else read:
                partners = layer.of.numpy()[layer.owner.numpy() == owner]
                shared_by_all = (
                    layer.side == "product"
                    and len(read) > 1
                    and batch["negatives"].shape.rank == 1
                    and owner != product
                )
                if not shared_by_all:
                    partners = partners[partners != (product if layer.side == "user" else user)]
                for partner in partners:
                    total += (
                        weight[b] * share / len(partners) * tf.reduce_sum(table[int(partner)] ** 2)
                    )
    return total


@pytest.mark.parametrize(
    ("name", "sparse_updates"),
    [*((name, "always") for name in CASES), ("mf implicit factors", "never"), ("shared", "never")],
)
def test_a_step_moves_along_the_gradient_of_the_objective(name, sparse_updates):
    trainer, batches = make(name, sparse_updates)
    variables = trainer.steps.trainable
    for step in (0, 3):  # the last batch is padded
        batch, y, weight = next(iter(batches.skip(step)))
        before = {path: variable.numpy() for path, variable in variables.items()}
        with tf.GradientTape() as tape:
            chosen = trainer.loss.choose(trainer.model, batch)
            objective = tf.reduce_sum(weight * trainer.loss(trainer.model, chosen, y)) / BATCH
            objective += L2 * penalty(trainer, chosen, weight / BATCH)
        wanted = tape.gradient(objective, variables, unconnected_gradients="zero")
        trainer.run(iter(batches.skip(step)), 1)
        for path, gradient in wanted.items():
            moved = before[path] - variables[path].numpy()
            np.testing.assert_allclose(
                moved, RATE * tf.convert_to_tensor(gradient), atol=2e-6, err_msg=f"{path} {step}"
            )


@pytest.mark.parametrize("name", ["mf implicit factors", "hybrid", "sigmoid", "shared", "in batch"])
def test_without_l2_a_step_is_without_its_gradient(name):
    ends = []
    for l2 in (0.0, 1e-30):
        trainer, batches = make(name, "always", l2)
        trainer.run(iter(batches), 3)
        ends.append([variable.numpy() for variable in trainer.steps.trainable.values()])
    for zero, tiny in zip(*ends):
        np.testing.assert_allclose(zero, tiny, atol=1e-6)


@pytest.mark.parametrize("name", ["mf", "mf implicit factors", "hybrid"])
def test_the_strength_of_l2_does_not_depend_on_the_batch(name):
    """From the same weights, a batch moves by the mean of what its rows move alone.

    A row looked up five times is shrunk five times.
    """
    moved = {}
    for batch_size in (1, 30):
        trainer, batches = make(name, "never", batch_size=batch_size)
        start = {path: variable.numpy() for path, variable in trainer.steps.trainable.items()}
        moved[batch_size] = dict.fromkeys(start, 0.0)
        iterator, steps = iter(batches), 30 // batch_size
        for _ in range(steps):
            for path, variable in trainer.steps.trainable.items():
                variable.assign(start[path])
            trainer.run(iterator, 1)
            for path, variable in trainer.steps.trainable.items():
                moved[batch_size][path] += (variable.numpy() - start[path]) / steps
    for path, movement in moved[1].items():
        np.testing.assert_allclose(moved[30][path], movement, atol=1e-5, err_msg=path)
