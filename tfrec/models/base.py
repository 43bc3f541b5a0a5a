"""The contract of a model: a batch in, one number per row out."""

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from tfrec.layers import Embedding, ImplicitFactors, Lookup, Parts, Products

Batch = dict[str, tf.Tensor]


class Recommender(tf.keras.Model):
    """A model says in `score` what a user's products are worth to him; every other way of scoring
    follows.

    Scores are in target units for the rating task, logits for the ranking task.
    """

    tasks: ClassVar[tuple[str, ...]] = ("rating", "ranking")
    # numbers that are made for each score of `score_all`: bounds how many users are ranked at
    # once
    floats_per_score = 1
    closed_form: ClassVar[bool] = False  # fitted by `fit_closed_form` instead of the training loop
    uses_product_features, uses_user_features = (
        False,
        False,
    )  # tells products (users) without training rows apart

    def fit_closed_form(self, examples: dict[str, Any]) -> None:
        """Fits a closed form to all training rows.

        Arrays user, product int [n], context f32 [n, C] and targets y f32 [n].
        """
        raise NotImplementedError

    def named_weights(self) -> dict[str, tf.Variable]:
        """{path by attributes, such as "user/table": raw variable}, trainable or not.

        Raises: RuntimeError: a weight is not reached through attributes (a plain list of layers,
            say), and would be lost in a checkpoint.
        """
        found = dict(_weights(self))
        if len(found) != len(self.weights):
            missing = {id(weight) for weight in self.weights} - {
                id(weight) for weight in found.values()
            }
            names = [weight.path for weight in self.weights if id(weight) in missing]
            raise RuntimeError(
                f"{self.name}: keep layers as attributes of the model; not found: "
                f"{', '.join(names)}"
            )
        return {path: weight.value for path, weight in found.items()}

    def embeddings(self, side: str) -> dict[str, Embedding]:
        """{path.

        Table} of the user's or the product's side: those kept in attributes whose name begins with
        `side`.
        """
        return {
            path: layer
            for path, layer in _layers(self, "")
            if isinstance(layer, Embedding) and path.split("/")[-1].startswith(side)
        }

    @contextlib.contextmanager
    def override_embeddings(self, rows: dict[str, tf.Tensor | Parts]) -> Iterator[None]:
        """In its scope, the tables at these paths are read from other rows [n, width], or from
        {part: rows [n, its width]}.

        So batch["user"] can count along users who are not in the tables. And a table that is kept
        by parts need not be split: a split of the whole of it is a copy.
        """
        tables = self.embeddings("user") | self.embeddings("product")
        tables = {path: tables[path] for path in rows}
        for path, table in tables.items():
            table.override = rows[path]
        try:
            yield
        finally:
            for table in tables.values():
                table.override = None

    def penalized(self) -> dict[str, np.ndarray]:
        """{path of a table under L2.

        Which of its columns, f32 [width] of 0 and 1}; biases are free of it.
        """
        tables = self.embeddings("user") | self.embeddings("product")
        found = {f"{path}/table": table.penalized() for path, table in tables.items()}
        return found | {
            f"{path}/table": np.ones(1, np.float32)
            for path, layer in _layers(self, "")
            if isinstance(layer, ImplicitFactors)
        }

    def lookups(
        self, batch: Batch, user: Lookup, products: list[Lookup]
    ) -> dict[str, list[Lookup]]:
        """{path of a table.

        What a training batch reads of it}; products: those of the rows, [B, N] or [N].
        """
        found = {f"{path}/table": [user] for path in self.embeddings("user")} | {
            f"{path}/table": products for path in self.embeddings("product")
        }
        for path, layer in _layers(self, ""):
            if isinstance(layer, ImplicitFactors) and layer.side == "user":
                found[f"{path}/table"] = [layer.lookups(user, batch["product"])]
            elif isinstance(layer, ImplicitFactors):
                found[f"{path}/table"] = [
                    layer.lookups(each, tf.expand_dims(batch["user"], 1)) for each in products
                ]
        return found

    def impute_cold_embeddings(self, users: np.ndarray, products: np.ndarray) -> None:
        """Sets the table rows of users and products that weigh 0 (f64 or bool [U], [P]) to the mean
        of the others' by their weights.
        """
        for side, weight in (("user", users), ("product", products)):
            share = tf.constant(weight[:, None] / weight.sum(), tf.float32)
            for table in self.embeddings(side).values():
                mean = tf.reduce_sum(share * table.table, axis=0)
                table.table.assign(tf.where(share > 0, table.table, mean))

    def set_policies(self, policies: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sets the types in which the layers compute from now on, by path.

        None: float32 in all. Returns those that were set before.
        """
        layers = {"": self, **dict(_layers(self, ""))}
        before = {path: layer.dtype_policy for path, layer in layers.items()}
        for path, layer in layers.items():
            layer.dtype_policy = "float32" if policies is None else policies[path]
        return before

    def finalize(self) -> None:
        """Called once, when training has ended.

        What is made of the training rows at each step becomes a part of the tables.
        """

    def unfinalize(self) -> None:
        """Takes back `finalize`, where its caller has restored the tables."""
        for _, layer in _layers(self, ""):
            if isinstance(layer, ImplicitFactors):
                layer.finalized = False

    def product_embeddings(self) -> tf.Tensor | None:
        """What two products are compared by, f32 [P, D].

        Their factors side by side. None where a model has none.
        """
        parts = [
            part
            for table in self.embeddings("product").values()
            for name, part in table(None).items()
            if name != "bias"
        ]
        return tf.cast(tf.concat(parts, axis=1), tf.float32) if parts else None

    def fold_in_scores(
        self, products: tf.Tensor, y: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        """Scores of every product, f32 [B, P], for users who are not in the data, from what they
        rated. None: no closed form can tell.

        products int32, y (targets) and weight f32 [B, L]; weight 0 is padding.
        """
        return None

    def score(self, batch: Batch, products: Products) -> tf.Tensor:
        """products int32 [B, N], int32 [N] or None (every product) -> f32 [B, N] or [B, P]."""
        raise NotImplementedError

    def call(self, batch: Batch, training: bool = False) -> tf.Tensor:
        """One score a row, f32 [B], of batch["product"]."""
        return tf.squeeze(self.score(batch, tf.expand_dims(batch["product"], 1)), 1)

    def score_candidates(
        self, batch: Batch, products: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """products int32 [B, N], or [N] the same for all rows -> f32 [B, N]; the user's side is
        computed once.

        training: batch["product"] is what the row teaches, so a model that counts a user's training
        rows leaves it out.
        """
        return self.score(batch, products)

    def score_all(self, batch: Batch) -> tf.Tensor:
        """Scores of every product, f32 [B, P]."""
        return self.score(batch, None)


def _layers(
    layer: tf.keras.layers.Layer, prefix: str
) -> Iterator[tuple[str, tf.keras.layers.Layer]]:
    """(path by attributes, layer) of all layers inside."""
    for name, value in vars(layer).items():
        if isinstance(value, tf.keras.layers.Layer):
            path = prefix + name.strip("_")
            yield path, value
            yield from _layers(value, f"{path}/")


def _weights(model: tf.keras.Model) -> Iterator[tuple[str, tf.keras.Variable]]:
    """(path by attributes, weight) of all weights inside."""
    for path, layer in [("", model), *_layers(model, "")]:
        for name, value in vars(layer).items():
            if isinstance(value, tf.keras.Variable):
                yield f"{path}/{name.strip('_')}".lstrip("/"), value
