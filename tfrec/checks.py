"""Which settings go together. config.py, whose classes they belong to, asks here."""

from typing import TYPE_CHECKING

from tfrec.errors import UsageError

if TYPE_CHECKING:
    from tfrec.config import DataConfig, ModelConfig, TrainConfig

LOSSES = {
    "rating": ("mse", "mae", "huber", "ordinal"),
    "ranking": ("sigmoid", "bpr", "sampled_softmax", "in_batch_softmax"),
}  # by task
BY_EPOCHS = ("mf", "ncf", "hybrid")  # the models without a closed form
READ_BY = {  # settings of the model that nobody else reads, and that would be missed in silence
    "implicit_factors": ("mf",),
    "gmf_dim": ("ncf",),
    "cosine": ("ncf",),
    "mlp_layers": ("ncf",),
    "pretrained": ("ncf",),
    "confidence_power": ("ease", "ials", *BY_EPOCHS),
}


def together(data: "DataConfig", model: "ModelConfig", train: "TrainConfig") -> None:
    """Raises UsageError where settings that are right alone are wrong together."""
    _data(data)
    if data.split == "files" and not (data.train_file and data.test_file):
        raise UsageError("--split=files needs --train_file and --test_file.")
    if data.split != "files" and (data.train_file or data.test_file or data.validation_file):
        raise UsageError("--train_file, --test_file and --validation_file go with --split=files.")
    if data.split == "kfold" and data.fold >= data.folds:
        raise UsageError(
            f"--fold={data.fold}: with --folds={data.folds} the folds are 0 to {data.folds - 1}."
        )
    if model.confidence_power and model.task != "ranking":
        raise UsageError("--confidence_power goes with --task=ranking.")
    if train.virtual_devices and train.strategy != "mirrored":
        raise UsageError("--virtual_devices goes with --strategy=mirrored.")
    if train.strategy == "parameter_server":
        refused = {
            "jit_compile": train.jit_compile,
            "deterministic": train.deterministic,
            "pretrained": model.pretrained,
        }
        for name, value in refused.items():
            if value:
                raise UsageError(
                    f"--{name} does not go with --strategy=parameter_server, whose variables are "
                    "elsewhere and in use."
                )
    for name, models in READ_BY.items():
        if getattr(model, name) != getattr(type(model)(), name) and model.model not in models:
            raise UsageError(f"--{name} goes with --model={' and '.join(models)}.")
    if model.gmf_dim and not model.cosine:
        raise UsageError("--nocosine: with --gmf_dim there is none. Leave one of them out.")
    if model.pretrained and not (model.gmf_dim and len(model.pretrained) == 2):
        raise UsageError("--pretrained=WORKDIR,WORKDIR takes two folders, and goes with --gmf_dim.")
    if train.weight_decay != type(train)().weight_decay and train.optimizer != "adamw":
        raise UsageError("--weight_decay goes with --optimizer=adamw.")
    if train.profile_steps and not (
        len(train.profile_steps) == 2 and train.profile_steps[0] < train.profile_steps[1]
    ):
        given = ",".join(map(str, train.profile_steps))
        raise UsageError(
            f"--profile_steps={given}: expected two rising numbers, the first and the last step, "
            "such as 100,120."
        )
    if train.loss not in ("auto", *LOSSES[model.task]):
        raise UsageError(
            f"--loss={train.loss} is not a loss of --task={model.task}. Leave it at auto."
        )
    if (
        train.loss not in ("auto", LOSSES[model.task][0]) and model.model not in BY_EPOCHS
    ):  # the first is what auto becomes
        raise UsageError(
            f"--loss={train.loss} goes with --model={' and '.join(BY_EPOCHS)}. Leave it at auto."
        )
    _loss(data, model, train)
    if data.dataset.startswith("blocks:"):
        _blocks(model, train)


def _loss(data: "DataConfig", model: "ModelConfig", train: "TrainConfig") -> None:
    """What goes with which loss."""
    if train.loss == "ordinal" and train.target_scaling == "product_minmax":
        raise UsageError(
            "--loss=ordinal needs the same levels for all products: leave --target_scaling at "
            "standard."
        )
    if train.temperature != 1 and not train.loss.endswith("softmax"):
        raise UsageError(
            "--temperature goes with --loss=sampled_softmax and --loss=in_batch_softmax."
        )
    if train.loss == "in_batch_softmax" and (train.shared_negatives or train.negative_power):
        raise UsageError(
            "--loss=in_batch_softmax draws no negatives: leave out --shared_negatives and "
            "--negative_power."
        )
    for name in ("shared_negatives", "negative_power", "exclude_positives", "hard_negatives"):
        if getattr(train, name) and model.task == "rating":
            raise UsageError(f"--{name} goes with --task=ranking.")
    by_product = (model.model == "mf" and "product" in model.implicit_factors) or (
        model.model == "hybrid" and "product_history" in model.terms
    )
    if (
        by_product
        and (train.shared_negatives or train.loss == "in_batch_softmax")
        and not train.exclude_positives
    ):
        # a negative that a user has would count them in its history, a positive does not
        raise UsageError(
            "--implicit_factors=product (the term product_history) with negatives that a batch "
            "shares needs --exclude_positives."
        )
    if not train.hard_negatives:
        return
    if train.loss.endswith("softmax") or train.shared_negatives:
        raise UsageError(
            "--hard_negatives goes with --loss=sigmoid and --loss=bpr, and without "
            "--shared_negatives."
        )
    if train.hard_negatives < train.negatives:
        raise UsageError(
            f"--hard_negatives={train.hard_negatives}: expected at least --negatives, which is "
            f"{train.negatives}."
        )


def _blocks(model: "ModelConfig", train: "TrainConfig") -> None:
    """What needs all training rows in memory and has them from nowhere."""
    for name, value in (
        ("confidence_power", model.confidence_power),
        ("exclude_positives", train.exclude_positives),
    ):
        if value:
            raise UsageError(
                f"--{name} needs the training rows in memory: it does not go with "
                "--dataset=blocks:FOLDER."
            )
    if train.loss == "in_batch_softmax" and train.strategy == "multi_worker":
        raise UsageError(
            "--loss=in_batch_softmax: no worker sees the whole batch with "
            "--dataset=blocks:FOLDER. Take sampled_softmax."
        )


def _data(data: "DataConfig") -> None:
    """What only your own data take, and whether its parts go together."""
    if data.dataset.startswith("blocks:"):
        return  # its settings are those of the folder, with which loading.load compares them
    tables = {"products": data.products, "users": data.users}
    settings, default = vars(data), vars(type(data)())
    own = ["interactions", "columns", "separator", *tables, "products_id", "users_id"]
    named = ["user_column", "product_column", "rating_column", "timestamp_column"]
    features = {
        side: [f"{side}_{kind}" for kind in ("categorical", "multivalued", "numeric")]
        for side in tables
    }
    of_both = [
        *named,
        "products_title",
        *features["products"],
        *features["users"],
        "value_separator",
    ]
    foreign = [] if data.dataset == "files" else own
    foreign = (
        foreign if data.dataset == "files" or data.dataset.startswith("tfds:") else own + of_both
    )
    for name in foreign:
        if data.dataset == "synthetic" and name in tables and settings[name] != default[name]:
            if not (
                settings[name].isascii()
                and settings[name].isdigit()
                and 0 < int(settings[name]) < 2**31
            ):
                raise UsageError(
                    f"--{name}={settings[name]}: expected a whole number with --dataset=synthetic."
                )
        elif settings[name] != default[name]:
            raise UsageError(
                f"--{name} goes with --dataset=files{' and tfds:NAME' if name not in own else ''}."
            )
    for side, names in features.items():
        columns = [column for name in names for column in settings[name]]
        for column in columns:
            if columns.count(column) > 1 or column == "title":
                raise UsageError(
                    f"--{side}_...: column {column} "
                    f"{'is the title' if column == 'title' else 'stands there twice'}."
                )
        if columns and data.dataset == "files" and not tables[side]:
            raise UsageError(
                f"--{side}_...: there is no --{side}=FILE with the column {columns[0]}."
            )
    if (data.dataset.startswith("tfds:") or data.dataset == "synthetic") and data.split == "files":
        raise UsageError("--split=files needs --dataset=files or a MovieLens edition.")
    if len({settings[name] for name in named}) < len(named):
        raise UsageError(
            "--user_column, --product_column, --rating_column and --timestamp_column must differ."
        )
    if data.dataset == "synthetic" and data.data_dir:
        raise UsageError("--data_dir does not go with --dataset=synthetic.")
    if data.dataset != "files":
        return
    if data.data_dir:
        raise UsageError(
            "--data_dir does not go with --dataset=files: give --interactions the whole path."
        )
    if bool(data.interactions) == (data.split == "files"):
        raise UsageError(
            "--dataset=files needs --interactions=FILE, or --split=files with --train_file and "
            "--test_file in its place."
        )
    if data.separator and not data.separator.strip():
        raise UsageError("--separator: write --separator=tab for a tab.")
    if data.columns and not {"user", "product"} <= set(data.columns):
        raise UsageError(
            f"--columns={','.join(data.columns)}: user and product must be among them."
        )
    if len(set(data.columns) - {"-"}) != len([column for column in data.columns if column != "-"]):
        raise UsageError(f"--columns={','.join(data.columns)}: a column stands there twice.")
