"""The contract of a model: a batch in, one number per row out."""

import contextlib
import re
import sys
import zlib
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow as tf

from tfrec import settings as parts
from tfrec.data.interactions import Interactions
from tfrec.errors import UsageError
from tfrec.layers import Embedding, FeatureEmbedding, ImplicitFactors, Lookup, Parts, Products
from tfrec.models.output import Output

Batch = dict[str, tf.Tensor]
SIDES = ("user", "product")


class Recommender(tf.keras.Model):
    """A model scores products for users in `score`; every other way of scoring follows.

    Write `Settings`, `__init__(self, train, settings)` and `score`; make models by `from_data`.
    Scores are in target units for the rating task, logits for the ranking task. Weights, layers and
    lists of layers are found wherever they are kept.

    Example:
        >>> class Bias(tfrec.Recommender):
        ...     def __init__(self, train, settings):
        ...         super().__init__(name="bias")
        ...         widths = {"bias": 1}
        ...         self.products = tfrec.layers.Embedding(train.num_products, widths, "product")
        ...
        ...     def score(self, batch, products, training=False):
        ...         nobody = 0.0 * tf.cast(batch["user"][:, None], tf.float32)
        ...         return self.products(products)["bias"] + nobody
        >>> model = Bias.from_data(split.train)
    """

    Settings: ClassVar[type] = parts.NoSettings
    tasks: ClassVar[tuple[str, ...]] = ("rating", "ranking")
    # tasks in which the weights of rows count; a Trainer weighs the rows of its batches
    takes_weights: ClassVar[tuple[str, ...]] = ("rating", "ranking")
    closed_form: ClassVar[bool] = False  # fitted by `fit_closed_form` instead of a Trainer
    # what the model reads of a batch beside user and product; None: whatever there is
    batch_columns: tuple[str, ...] | None = None
    # numbers that are made for each score of `score_all`: bounds how many users are ranked at once
    floats_per_score = 1
    # numbers that are made to score one row: bounds how many are scored at once
    floats_per_row = 1
    # whether `of_known` answers for users and products without training rows
    answers_for_new: ClassVar[bool] = False
    # tells products (users) without training rows apart
    uses_product_features, uses_user_features = False, False
    counts_product_history = False  # a training row's product is scored without the row's user

    settings: Any
    data: Interactions  # what the model was made for
    task: str
    output: Output = None  # type: ignore[assignment]  # Keras has a property of this name

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.output = Output()
        self.built = True  # layers without weights make them in the first call

    def reads(self, column: str) -> bool:
        """Returns whether the model reads a column of a batch, if there is one."""
        return self.batch_columns is None or column in self.batch_columns

    @classmethod
    def from_data(cls, train: Interactions, task: str = "", seed: int = 0, **settings: Any) -> Self:
        """Makes a model for training rows, with all of its weights.

        Args:
            train: The training rows.
            task: rating or ranking; "": the first that the model does.
            seed: Of the initial weights.
            settings: Fields of `Settings`; the others are at their defaults.

        Raises:
            UsageError: The model does not do the task, a setting is unknown or has a wrong value,
                or the data lack what the model needs.
        """
        if not isinstance(train, Interactions):
            raise UsageError(
                f"train={type(train).__name__}: expected training rows, such as split.train."
            )
        task = task or cls.tasks[0]
        if task not in cls.tasks:
            raise UsageError(f"task={task}: {cls.__name__} does only {', '.join(cls.tasks)}.")
        data = train.for_task(task)
        made = parts.filled(parts.make(cls, settings), task)
        model = cls(data, made)  # type: ignore[call-arg]
        model.settings, model.data, model.task = made, data, task
        if not cls.closed_form:
            model.check_score(data.example(model.reads))
        model.draw_weights(seed)
        return model

    def check_score(self, batch: Batch) -> None:
        """Calls `score` as training, evaluation and serving do, which makes layers' weights.

        Args:
            batch: Of one row.

        Raises:
            UsageError: It fails, or returns something else than a score for each product.
        """
        two, name = tf.zeros([2], tf.int32), f"{type(self).__name__}.score"
        for products in (two[None], two):
            try:
                found = self(batch, products=products)
            except UsageError:
                raise
            except Exception as error:
                # Keras adds a traceback of its own, in colours
                lines = re.sub(r"\x1b\[\d*m", "", str(error)).split("\n")
                wrong = [line for line in lines if line and "encountered when calling" not in line]
                why = wrong[0].removesuffix(".") if wrong else type(error).__name__
                raise UsageError(
                    f"{name}: {why} (with products int32 {list(products.shape)}). "
                    "docs/extending.md says what it is given; tfrec.layers.rowwise and pairs help."
                ) from error
            if tuple(found.shape) != (1, 2):
                raise UsageError(
                    f"{name}: of products int32 {list(products.shape)} for one row it returned "
                    f"{list(found.shape)}, expected [1, 2]."
                )

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Refuses: a model needs its data to be made anew.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "save: a model is kept by tfrec.export, to be served, or by tfrec.train as a run that "
            "tfrec.Run.open takes up again."
        )

    def save_weights(self, *args: Any, **kwargs: Any) -> None:
        """Writes the weights as Keras does, for a model whose scores need no scaling.

        Raises:
            UsageError: The scores are scaled by the loss, which a file of weights does not hold.
        """
        if self.output.scale is not None:
            raise UsageError(
                "save_weights: the loss scales the scores (target_scaling), and the file would not "
                "hold how. Take target_scaling=none, tfrec.export or tfrec.train."
            )
        super().save_weights(*args, **kwargs)

    def fit_closed_form(self, train: Interactions) -> None:
        """Fits a closed form to all training rows."""
        raise NotImplementedError

    def score(self, batch: Batch, products: Products, training: bool = False) -> tf.Tensor:
        """Scores products for the users of a batch; the user's side is computed once.

        Args:
            batch: Its columns; in serving only those of users.
            products: int32 [B, N], [N] for all rows, or None for every product.
            training: batch["product"] is what the row teaches, so a model that counts a user's
                training rows leaves it out.

        Returns:
            f32 [B, N], or [B, P] for every product.
        """
        raise NotImplementedError

    def call(
        self,
        batch: Batch,
        products: Products = None,
        every: bool = False,
        training: bool = False,
    ) -> tf.Tensor:
        """One score a row, f32 [B], of batch["product"]; or those of products, or of every one."""
        if every or products is not None:
            return self.score(batch, None if every else products, training)
        one = self.score(batch, tf.expand_dims(batch["product"], 1), training)
        return tf.squeeze(one, 1)

    def score_candidates(
        self, batch: Batch, products: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Scores of products int32 [B, N], or [N] for all rows, f32 [B, N]."""
        return self(batch, products=products, training=training)

    def score_all(self, batch: Batch) -> tf.Tensor:
        """Scores of every product, f32 [B, P]."""
        return self(batch, every=True)

    def fold_in_scores(
        self, products: tf.Tensor, ratings: tf.Tensor, weight: tf.Tensor
    ) -> tf.Tensor | None:
        """Scores for users who are not in the data, in closed form.

        Args:
            products: What each of them has rated, int32 [B, L].
            ratings: In the data's unit, f32 [B, L].
            weight: f32 [B, L], 0 for padding.

        Returns:
            Scores of every product, f32 [B, P]; None: the model has no such form.
        """
        return None

    def of_known(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor:
        """Returns the scores of pairs, of a model with `answers_for_new`.

        Args:
            user: int32 [B]; -1: somebody who is not in the data.
            product: int32 [B], likewise.

        Returns:
            f32 [B].
        """
        raise NotImplementedError

    def deviation(self, user: tf.Tensor, product: tf.Tensor) -> tf.Tensor | None:
        """Returns how far ratings may be from their scores: their standard deviation, given the
        training rows.

        Args:
            user: int32 [B]; -1: somebody who is not in the data.
            product: int32 [B], likewise.

        Returns:
            f32 [B], in rating units; None: the model does not know.
        """
        return None

    def draw_weights(self, seed: int) -> None:
        """Draws the weights that start at random, each from (seed, its path).

        So they depend on nothing that was drawn before. A layer's weight NAME starts by the layer's
        NAME_initializer, as Keras' layers have it; weights without one are left as they are.
        """
        for path, layer in [("", self), *self.named_layers().items()]:
            for weight in layer._trainable_variables + layer._non_trainable_variables:
                start: Any = getattr(layer, f"{weight.name}_initializer", None)
                config = start.get_config() if hasattr(start, "get_config") else {}
                if "seed" in config:
                    config["seed"] = seed_of(seed, f"{path}/{weight.name}".lstrip("/"))
                    drawn = type(start).from_config(config)(weight.shape, weight.dtype)
                    weight.value.assign(drawn)
        for path, state in self.seed_states().items():
            state.assign(tf.constant([seed_of(seed, path), 0], state.dtype))

    def seed_states(self) -> dict[str, tf.Variable]:
        """Returns {path: state uint32 [2]} of the layers that draw in training, such as dropout."""
        found = {}
        for path, layer in self.named_layers().items():
            for number, generator in enumerate(layer._seed_generators):
                found[f"{path}/seed_{number}"] = generator.state.value
        return found

    def start_at(self, mean: float) -> None:
        """Lets the scores start at the mean of the targets, which a loss may scale.

        By default it sets the weight `mean`, where there is one.
        """
        if getattr(self, "mean", None) is not None:
            self.mean.assign(mean)

    def named_weights(self) -> dict[str, tf.Variable]:
        """Returns {path, such as "users/table": raw variable}, trainable or not."""
        found: dict[str, tf.keras.Variable] = {}
        for path, layer in [("", self), *self.named_layers().items()]:
            for weight in layer._trainable_variables + layer._non_trainable_variables:
                found[f"{path}/{weight.name}".lstrip("/")] = weight
        missing = {id(each) for each in self.weights} - {id(each) for each in found.values()}
        if missing:
            names = [weight.path for weight in self.weights if id(weight) in missing]
            raise RuntimeError(
                f"{self.name}: two weights of a layer have one name: {', '.join(names)}"
            )
        return {path: weight.value for path, weight in found.items()}

    def named_layers(self) -> dict[str, tf.keras.layers.Layer]:
        """Returns {path by attributes, such as "mlp/hidden" or "towers/0": layer} of all layers
        inside.
        """
        found: dict[str, tf.keras.layers.Layer] = {}
        _walk(self, "", found)
        return found

    def embeddings(self, side: str) -> dict[str, Embedding]:
        """Returns {path: table} of the "user" or "product" side."""
        return {
            path: layer
            for path, layer in self.named_layers().items()
            if isinstance(layer, Embedding) and layer.side == side
        }

    def implicit_factors(self) -> dict[str, ImplicitFactors]:
        """Returns the layers of SVD++ implicit factors, {path: layer}."""
        layers = self.named_layers().items()
        return {path: layer for path, layer in layers if isinstance(layer, ImplicitFactors)}

    def feature_embeddings(self) -> dict[str, FeatureEmbedding]:
        """Returns {path: layer} of the sums over features."""
        layers = self.named_layers().items()
        return {path: layer for path, layer in layers if isinstance(layer, FeatureEmbedding)}

    @contextlib.contextmanager
    def override_embeddings(self, rows: dict[str, tf.Tensor | Parts]) -> Iterator[None]:
        """In its scope, the tables at these paths are read from other rows [n, width], or from
        {part: rows [n, its width]}.

        So batch["user"] can count along users who are not in the tables. And a table that is kept
        by parts need not be split: a split of the whole of it is a copy. Sums over features that
        are kept need not be made.
        """
        layers = self.named_layers()
        tables: dict[str, Any] = {path: layers[path] for path in rows}
        before = {path: table.override for path, table in tables.items()}
        for path, table in tables.items():
            table.override = rows[path]
        try:
            yield
        finally:
            for path, table in tables.items():
                table.override = before[path]

    def penalized(self) -> dict[str, np.ndarray]:
        """Returns {path of a table under L2: which of its columns are, f32 [width] of 0 and 1}."""
        tables = self.embeddings("user") | self.embeddings("product")
        found = {f"{path}/table": table.penalized() for path, table in tables.items()}
        one = np.ones(1, np.float32)
        return found | {f"{path}/table": one for path in self.implicit_factors()}

    def lookups(
        self, batch: Batch, user: Lookup, products: list[Lookup]
    ) -> dict[str, list[Lookup]]:
        """Returns what a training batch reads of each table, by path.

        Args:
            products: Those of the rows, [B, N] or [N].
        """
        found = {f"{path}/table": [user] for path in self.embeddings("user")} | {
            f"{path}/table": products for path in self.embeddings("product")
        }
        for path, sums in self.feature_embeddings().items():
            if not sums.features.narrow:
                owners = [user] if sums.features.side == "user" else products
                found[f"{path}/kernel"] = [sums.lookups(each) for each in owners]
        for path, layer in self.implicit_factors().items():
            if layer.side == "user":
                found[f"{path}/table"] = [layer.lookups(user, batch["product"])]
            else:
                found[f"{path}/table"] = [
                    layer.lookups(each, tf.expand_dims(batch["user"], 1)) for each in products
                ]
        return found

    def impute_cold_embeddings(self, users: np.ndarray, products: np.ndarray) -> None:
        """Sets the table rows of users and products that weigh 0 (f64 or bool [U], [P]) to the mean
        of the others' by their weights.
        """
        for side, weight in zip(SIDES, (users, products)):
            share = tf.constant(weight[:, None] / weight.sum(), tf.float32)
            for table in self.embeddings(side).values():
                mean = tf.reduce_sum(share * table.table, axis=0)
                table.table.assign(tf.where(share > 0, table.table, mean))

    def set_policies(self, policies: dict[str, Any] | None = None) -> dict[str, Any]:
        """Sets the types in which the layers compute from now on, by path.

        None: float32 in all. Returns those that were set before.
        """
        layers = {"": self, **self.named_layers()}
        before = {path: layer.dtype_policy for path, layer in layers.items()}
        for path, layer in layers.items():
            layer.dtype_policy = "float32" if policies is None else policies[path]
        return before

    def finalize(self) -> None:
        """Makes what is computed of the training rows at each step a part of the tables.

        Called once, when training has ended.
        """

    def equations(self) -> list[str]:
        """Returns the lines of the equation at the head of the model's file, for a picture."""
        text = sys.modules[type(self).__module__].__doc__ or ""
        return [line[4:] for line in text.splitlines() if line.startswith("    ")]

    def product_embeddings(self) -> tf.Tensor | None:
        """Returns what two products are compared by, f32 [P, D]: their factors side by side.

        None where a model has none.
        """
        factors = [
            part
            for table in self.embeddings("product").values()
            for name, part in table.parts(None).items()
            if name != "bias"
        ]
        return tf.cast(tf.concat(factors, axis=1), tf.float32) if factors else None


def _walk(layer: Any, prefix: str, found: dict[str, tf.keras.layers.Layer]) -> None:
    """Adds all layers inside by their path, each once; attributes first, then what Keras keeps."""
    for name, value in vars(layer).items():
        if not name.startswith("_"):
            _add(value, f"{prefix}{name}", found)
    # a Sequential counts no InputLayer among its layers
    inner = layer.layers if isinstance(layer, tf.keras.Model) else layer._layers
    for number, value in enumerate(inner):
        _add(value, f"{prefix}{number}", found)


def _add(value: Any, path: str, found: dict[str, tf.keras.layers.Layer]) -> None:
    if isinstance(value, tf.keras.layers.Layer):
        if not any(value is each for each in found.values()):
            found[path] = value
            _walk(value, f"{path}/", found)
    elif isinstance(value, list | tuple | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in items:
            _add(each, f"{path}/{name}", found)


def seed_of(seed: int, path: str) -> int:
    """Returns the seed of what has a path, int31."""
    return zlib.crc32(f"{seed}/{path}".encode()) >> 1
