"""Every setting of tfrec, once: its name, type, default and one line of help. flags.py makes flags
from it.

Settings are grouped by the room that reads them; names are unique over all groups, so a flag file
and `make_config(model="ncf", epochs=3)` name them without the group.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from tfrec import checks
from tfrec import settings as settings_room
from tfrec.errors import UsageError, nearest
from tfrec.settings import setting
from tfrec.system.sealed import seal

DATASETS = (
    "latest-small",
    "latest",
    "100k",
    "1m",
    "10m",
    "20m",
    "25m",
    "32m",
    "files",
    "synthetic",
    "blocks:FOLDER",
    "tfds:NAME",
)  # NAME: any
INTERACTION = ("user", "product", "rating", "timestamp")
CONTEXT = ("daytime", "weekend", "hour", "weekday", "month", "date")
SPLITS = (
    "auto",
    "random",
    "by_product",
    "temporal",
    "user_temporal",
    "leave_one_out",
    "cold_user",
    "cold_product",
    "kfold",
    "files",
)
AUTO: dict[str, dict[str, Any]] = {
    "rating": {"loss": "mse", "l2": 0.1},
    "ranking": {"loss": "sigmoid", "l2": 0.003},
}  # by task
TERMS = (
    "bias",
    "user_day_bias",
    "dot",
    "feature_factors",
    "context_factors",
    "user_history",
    "product_history",
    "cosine",
    "mlp",
    "features",
    "context",
)


@dataclass(frozen=True)
class DataConfig:
    dataset: str = setting(
        "latest-small",
        "a MovieLens edition (latest-small ships with tfrec, the others are downloaded or read "
        "from --data_dir), files: your own data, "
        "tfds:NAME: a data set that TFDS has prepared, blocks:FOLDER: what scripts/prepare.py "
        "wrote for data larger than memory, or for "
        "prepare.py itself, synthetic: one that is drawn at random",
        DATASETS,
    )
    data_dir: str = setting(
        "",
        "folder or original zip that holds the data set, or TFDS' folder; empty: the built-in "
        "one, else a download",
    )
    interactions: str = setting(
        "",
        "files: who rated or took what, one row each; CSV, TSV (also gzipped) or Parquet; for "
        "prepare.py several: a.csv,b.csv, part-*.csv",
    )
    user_column: str = setting("user", "files, tfds: column of the user's id")
    product_column: str = setting("product", "files, tfds: column of the product's id")
    rating_column: str = setting(
        "rating", "files, tfds: column of the rating; without one --task=ranking is left"
    )
    timestamp_column: str = setting(
        "timestamp", "files, tfds: column of the time, in seconds since 1970; may lack"
    )
    columns: tuple[str, ...] = setting(
        (),
        "files: the columns of an --interactions file without a header, in its order; - is ignored",
        (*INTERACTION, "-"),
    )
    separator: str = setting(
        "",
        "files: what stands between two fields; tab for a tab; empty: a comma, in .tsv files a tab",
    )
    products: str = setting(
        "", "files: table of products with a header; CSV, TSV or Parquet (synthetic: how many)"
    )
    products_id: str = setting(
        "", "column of the product's id in --products; empty: as in --interactions"
    )
    products_title: str = setting("title", "column of the product's title in --products; may lack")
    products_categorical: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of products, one value each"
    )
    products_multivalued: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of products, several values each"
    )
    products_numeric: tuple[str, ...] = setting(
        (), "files, tfds: columns of numbers that make features of products"
    )
    users: str = setting(
        "", "files: table of users with a header; CSV, TSV or Parquet (synthetic: how many)"
    )
    users_id: str = setting("", "column of the user's id in --users; empty: as in --interactions")
    users_categorical: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of users, one value each"
    )
    users_multivalued: tuple[str, ...] = setting(
        (), "files, tfds: columns that make features of users, several values each"
    )
    users_numeric: tuple[str, ...] = setting(
        (), "files, tfds: columns of numbers that make features of users"
    )
    value_separator: str = setting("|", "what stands between the values of a multi-valued column")
    duplicates: str = setting(
        "last",
        "of several rows of a user and product keep the latest, or the mean rating, or end the run",
        ("last", "mean", "error"),
    )
    year_bins: int = setting(
        0,
        "products with a year (MovieLens' have one) are also told apart by it: a feature for so "
        "many years each; 0: none",
        low=0,
    )
    context: tuple[str, ...] = setting(
        ("daytime", "weekend"), "what a timestamp tells the model", CONTEXT
    )
    context_encoding: str = setting(
        "cyclic",
        "hour, weekday and month as a sine and a cosine, or as one column a value",
        ("cyclic", "categorical"),
    )
    on_bad_rows: str = setting(
        "error",
        "what a malformed row does: end the run, or be skipped and counted",
        ("error", "skip"),
    )
    time_zone: str = setting(
        "UTC", "time zone in which daytime and weekend are told, such as Europe/Vienna"
    )
    split: str = setting(
        "auto",
        "how rows are divided into training and test; auto: user_temporal, or random without "
        "timestamps",
        SPLITS,
    )
    split_seed: int = setting(0, "seed of the split's shuffle", low=0, high=2**32 - 1)
    test_fraction: float = setting(
        0.2, "share of rows (of users, of products) that are tested", low=0.0, high=0.99
    )
    validation_fraction: float = setting(
        0.1,
        "share of the training rows held out for validation; 0 trains on all of them",
        low=0.0,
        high=0.99,
    )
    validation_rule: str = setting(
        "split",
        "cut validation by the split's own rule, or take the last rows in (user, product) order",
        ("split", "last_rows"),
    )
    folds: int = setting(5, "number of folds of --split=kfold", low=2)
    fold: int = setting(0, "fold that is tested, from 0", low=0)
    train_file: str = setting("", "training rows of --split=files, in the data set's own format")
    test_file: str = setting("", "test rows of --split=files")
    validation_file: str = setting(
        "", "validation rows of --split=files; empty: cut at random from the training rows"
    )


@dataclass(frozen=True)
class ModelConfig:
    model: str = setting("ncf", "which model; the table is in tfrec/models/__init__.py")
    task: str = setting(
        "rating",
        "predict the rating, or rank products from implicit feedback",
        ("rating", "ranking"),
    )
    embedding_dim: int = setting(50, "width of the user and product factors", low=1)
    similarity: str = setting("dot", "mf: how the factors meet", ("dot", "cosine"))
    implicit_factors: tuple[str, ...] = setting(
        (),
        "mf: add SVD++ implicit factors to users' factors (of the products that they have rated), "
        "to products' (of the users who have rated them)",
        ("user", "product"),
    )
    biases: bool = setting(True, "mf and ncf: add the mean and a bias for each user and product")
    gmf_dim: int = setting(
        0,
        "ncf: GMF embedding width (NeuMF); 0: a cosine in its place",
        low=0,
    )
    cosine: bool = setting(True, "ncf without --gmf_dim: a cosine beside the MLP")
    mlp_layers: tuple[int, ...] = setting(
        (), "ncf: widths of the MLP's hidden layers; empty: one of half the --embedding_dim", low=1
    )
    pretrained: tuple[str, ...] = setting(
        (),
        "ncf: start NeuMF at these two finished runs' folders: --model=mf of width --gmf_dim, and "
        "--model=ncf --nocosine",
    )
    terms: tuple[str, ...] = setting(
        (),
        "hybrid: the terms that are summed; empty: bias, dot, feature_factors, features and "
        "context, where the data have them",
        TERMS,
    )
    neighbours: int = setting(
        100, "item_knn and user_knn: how many nearest products (users) of each one are kept", low=1
    )
    shrinkage: float = setting(
        50.0,
        "item_knn and user_knn: a similarity that rests on n shared entries counts n / (n + "
        "shrinkage)",
        low=0.0,
    )
    confidence_power: float = setting(
        0.0,
        "ranking by ease, ials and all with epochs: confidence weight of a training row, (rating / "
        "highest rating) ^ confidence_power; 0: all weigh alike",
        low=0.0,
    )
    ease_l2: float = setting(
        200.0,
        "ease: L2 on the weights between products, in units of one row's squared error",
        low=1e-3,
    )
    iterations: int = setting(
        10,
        "ials: passes, each of which solves for the factors of all products, then of all users",
        low=1,
    )
    unobserved_weight: float = setting(
        0.3,
        "ials: weight of unobserved entries, relative to 1 for observed ones",
        low=1e-9,
    )
    ials_l2: float = setting(
        0.01,
        "ials: L2 on a user's (product's) factors, for each of the errors that they take part in",
        low=1e-9,
    )


@dataclass(frozen=True)
class TrainConfig:
    loss: str = setting(
        "auto",
        "auto: mse for ratings, sigmoid cross-entropy for ranking",
        ("auto", *checks.LOSSES["rating"], *checks.LOSSES["ranking"]),
    )
    target_scaling: str = setting(
        "standard",
        "rating: scale of the training targets: mean 0 and deviation 1, the ratings as they are, "
        "or min-max to 0.5..1",
        ("standard", "none", "product_minmax", "global_minmax"),
    )
    temperature: float = setting(
        1.0, "sampled_softmax and in_batch_softmax: what scores are divided by", low=1e-3
    )
    optimizer: str = setting(
        "adam",
        "optimiser",
        ("sgd", "momentum", "adagrad", "rowwise_adagrad", "adam", "adamw", "ftrl"),
    )
    weight_decay: float = setting(
        0.004,
        "adamw: share of the weights, times the learning rate, that a step takes away",
        low=0.0,
    )
    sparse_updates: str = setting(
        "auto",
        "update only the touched rows of a table; auto: of a table that is large against the batch",
        ("auto", "always", "never"),
    )
    learning_rate: float = setting(0.002, "peak learning rate", low=0.0)
    schedule: str = setting(
        "constant", "learning rate after the warm-up", ("constant", "cosine", "exponential")
    )
    decay: float = setting(
        0.01,
        "share of the learning rate that is left at the end of a cosine or exponential schedule",
        low=0.0,
        high=1.0,
    )
    warmup_steps: int = setting(
        0, "steps over which the learning rate rises linearly from 0", low=0
    )
    l2: float | None = setting(
        None,
        "L2: each row of a table that a training row reads adds l2 times its squared length to "
        "that row's loss, biases apart; "
        "unset: 0.1 for ratings, 0.003 for ranking",
        low=0.0,
    )
    cold_embeddings: str = setting(
        "mean",
        "table rows of users and products without training rows: the mean of the others, which "
        "weigh by their own training rows in so far "
        "as validation rows are of such users or products, or their random ones",
        ("mean", "keep"),
    )
    clip_norm: float = setting(0.0, "clip gradients to this global norm; 0: never", low=0.0)
    epochs: int = setting(50, "passes over the training rows, at most", low=1)
    batch_size: int = setting(1024, "global batch size, over all replicas", low=1)
    negatives: int = setting(
        8, "ranking: negatives drawn for each positive, anew at each step", low=1
    )
    shared_negatives: int = setting(
        0,
        "ranking: share this many negatives across the batch; the total weight is unchanged",
        low=0,
    )
    negative_power: float = setting(
        0.0,
        "ranking: popularity-weighted negatives: draw them in proportion to their training rows "
        "to this power; 0: uniformly",
        low=0.0,
        high=10.0,
    )
    exclude_positives: bool = setting(
        False, "ranking: no negatives that the row's user has in training"
    )
    hard_negatives: int = setting(
        0,
        "sigmoid and bpr: draw so many for each positive, and train on those --negatives of the "
        "highest score; 0: on all drawn",
        low=0,
    )
    steps_per_loop: int = setting(
        0, "steps of one inner loop in the graph; 0: an epoch, at most 1,000", low=0
    )
    early_stopping: int = setting(
        5,
        "stop after this many epochs without a better validation figure, keep the best weights; "
        "0: never, keep the last",
        low=0,
    )
    seed: int = setting(
        0, "seed of initial weights, order of rows and negatives", low=0, high=2**31 - 1
    )
    deterministic: bool = setting(
        False, "the same bits on every run of the same command, at some cost in speed"
    )
    strategy: str = setting(
        "default",
        "tf.distribute strategy",
        ("default", "one_device", "mirrored", "multi_worker", "parameter_server"),
    )
    virtual_devices: int = setting(
        0,
        "split the CPU into this many devices, to try --strategy=mirrored without GPUs; 0: leave "
        "it whole",
        low=0,
    )
    precision: str = setting(
        "float32",
        "mixed_bfloat16 computes in bfloat16 and keeps the weights in float32",
        ("float32", "mixed_bfloat16"),
    )
    jit_compile: bool = setting(
        False, "compile the gradient with XLA (on CPU this made a step 50 times slower)"
    )
    histograms: bool = setting(False, "histograms of the weights for TensorBoard")
    profile_steps: tuple[int, ...] = setting(
        (),
        "first and last step, counted from 1, of a profile for TensorBoard, such as 100,120; "
        "empty: none",
        low=1,
    )


@dataclass(frozen=True)
class EvaluationConfig:
    k: tuple[int, ...] = setting((5, 10, 20), "cut-offs of the ranking metrics", low=1)
    relevance_threshold: float | None = setting(
        None, "test rows with at least this rating are relevant; unset: all are"
    )
    evaluation_context: str = setting(
        "true",
        "context of tested rows: their own, or the static default that serving fills in",
        ("true", "static"),
    )
    ranked_users: int = setting(
        10_000,
        "ranking metrics (from blocks: all metrics) are of so many users at most, drawn from "
        "those with rows to test; 0: of all",
        low=0,
    )
    fallbacks: bool = setting(
        True,
        "who and what has no training rows is answered for as in the export, not by the bare model",
    )
    candidates_file: str = setting(
        "",
        "rank each test product among given negatives: lines of '(user,item)', then tab-separated "
        "negatives",
    )


@dataclass(frozen=True)
class Config:
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    workdir: str = setting("", "folder of the run; empty: runs/DATASET-MODEL-TIME")

    def flat(self) -> dict[str, Any]:
        """{setting: value} over all groups."""
        values = {
            name: value for group in GROUPS for name, value in vars(getattr(self, group)).items()
        }
        return values | {"workdir": self.workdir}

    def replace(self, **settings: Any) -> "Config":
        """A copy with other values.

        Raises:
            UsageError: an unknown name, a wrong type or a value out of range.
        """
        return make_config(**(self.flat() | settings))

    def flagfile(self) -> str:
        """The settings as a flag file that ends in its checksum, without the workdir."""
        return seal(self.flag_lines())

    def flag_lines(self) -> str:
        """The settings as the lines of a flag file, without the workdir.

        A text that a line would not keep is a JSON string.
        """
        settings = {
            name: value
            for name, value in self.flat().items()
            if name != "workdir" and value is not None
        }
        return "".join(
            f"{flag_line(name, json.dumps(value) if _is_lost(value) else value)}\n"
            for name, value in settings.items()
        )


GROUPS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "evaluation": EvaluationConfig,
}
FIELDS: dict[str, dataclasses.Field] = {
    f.name: f for group in GROUPS.values() for f in dataclasses.fields(group)
} | {"workdir": next(f for f in dataclasses.fields(Config) if f.name == "workdir")}


def make_config(**settings: Any) -> Config:
    """A Config from settings by name, the rest at their defaults.

    Raises: UsageError: an unknown name (the message names the nearest), a wrong type or a value out
        of range.
    """
    for name, value in settings.items():
        if name not in FIELDS:
            raise UsageError(f"--{name}: there is no such setting.{nearest(name, FIELDS)}")
        check(name, value)
    groups = {
        group: cls(
            **{f.name: settings[f.name] for f in dataclasses.fields(cls) if f.name in settings}
        )
        for group, cls in GROUPS.items()
    }
    config = Config(**groups, workdir=settings.get("workdir", ""))
    checks.together(config.data, config.model, config.train)
    return config


def kind_of(name: str) -> tuple[type, type, bool]:
    """What a setting is: (type, type of the items where it is a tuple, whether it may be None)."""
    return settings_room.kind_of(FIELDS[name])


def check(name: str, value: Any) -> None:
    """Checks one value of a setting, whatever the others are.

    Raises:
        UsageError: It has the wrong type or is out of bounds.
    """
    try:
        settings_room.check(FIELDS[name], value)
    except UsageError as error:
        raise UsageError(f"--{error}") from None


def flag_line(name: str, value: Any) -> str:
    """As a flag file has it."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, tuple):
        return f"--{name}={','.join(map(_item, value))}"
    return f"--{name}={value}"


def _item(value: Any) -> str:
    """As a list has it: in quotation marks where it would be taken for another item."""
    text = str(value)
    if not isinstance(value, str) or (text and text == text.strip() and not set(text) & {'"', ","}):
        return text
    return '"{}"'.format(text.replace('"', '""'))


def _is_lost(value: Any) -> bool:
    """Would a line of a flag file not give the text back as it is?"""
    return isinstance(value, str) and (
        value != value.strip() or value.startswith('"') or not value.isprintable()
    )
