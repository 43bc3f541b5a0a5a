"""The settings of a run: the choice of its parts, and what each of them is set to."""

import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfrec import settings
from tfrec.data.settings import Blocks, DataChoices, DataSettings, Features, source_of
from tfrec.errors import UsageError, nearest
from tfrec.evaluation.settings import (
    Evaluation,
    EvaluationSettings,
    FullRanking,
    Judging,
    RankingMetrics,
)
from tfrec.experiments.tables import BASES, MODELS, TABLES
from tfrec.settings import Part, setting
from tfrec.system.sealed import seal
from tfrec.training.settings import Logging, Profiling, Stopping, Training

if TYPE_CHECKING:
    from tfrec.losses import Loss
    from tfrec.models import Recommender


class Choices(Part):
    """Which data, which model, for which task."""

    @dataclass(frozen=True)
    class Settings(DataChoices):
        model: str = setting(
            "ncf",
            "which model; path/to/file.py:Class or package.module:Class names one of your own",
        )
        task: str = setting(
            "rating",
            "predict the rating, or rank products from implicit feedback",
            ("rating", "ranking"),
        )
        refit: str = setting(
            "validation",
            "after the validation rows have chosen the epochs, train anew for so many on training "
            "and validation rows, and test and export that model; all: after the test once more on "
            "all rows, and export that one; none: the model of the training rows alone (as with "
            "data on disk)",
            ("validation", "all", "none"),
        )
        workdir: str = setting("", "folder of the run; empty: runs/DATASET-MODEL-TIME")


class TrainedChoices(Part):
    """How a model without a closed form is trained."""

    @dataclass(frozen=True)
    class Settings:
        loss: str = setting(
            "auto",
            "auto: mse for ratings, sampled_softmax for ranking; path/to/file.py:Class or "
            "package.module:Class names one of your own",
            by_task={"rating": "mse", "ranking": "sampled_softmax"},
        )
        optimizer: str = setting(
            "adam",
            "which optimizer; path/to/file.py:Class or package.module:Class names one of your own",
        )


class Devices(Part):
    """Where a model is trained."""

    @dataclass(frozen=True)
    class Settings:
        strategy: str = setting(
            "default",
            "tf.distribute strategy",
            ("default", "one_device", "mirrored", "multi_worker", "parameter_server"),
        )
        virtual_devices: int = setting(
            0,
            "split the CPU into this many devices, to try --strategy=mirrored without GPUs; 0: "
            "leave it whole",
            low=0,
        )
        precision: str = setting(
            "float32",
            "mixed_bfloat16 computes in bfloat16 and keeps the weights in float32",
            ("float32", "mixed_bfloat16"),
        )
        deterministic: bool = setting(
            False, "the same bits on every run of the same command, at some cost in speed"
        )

        def __post_init__(self) -> None:
            if self.virtual_devices and self.strategy != "mirrored":
                raise UsageError("virtual_devices goes with strategy=mirrored.")
            if self.deterministic and self.strategy == "parameter_server":
                raise UsageError("deterministic is not supported with strategy=parameter_server.")


class Pretraining(Part):
    """What NeuMF starts from."""

    @dataclass(frozen=True)
    class Settings:
        pretrained: tuple[str, ...] = setting(
            (),
            "ncf: start NeuMF at these two finished runs' folders: --model=mf --similarity=dot of "
            "width --gmf_dim, and --model=ncf --nocosine",
        )

        def __post_init__(self) -> None:
            if len(self.pretrained) not in (0, 2):
                raise UsageError("pretrained=WORKDIR,WORKDIR takes two folders.")


TRAINED: dict[str, type] = {  # parts of every run whose model is trained, by role
    "choices": TrainedChoices,
    "trainer": Training,
    "early_stopping": Stopping,
    "tensorboard": Logging,
    "profile": Profiling,
    "devices": Devices,
}


@dataclass(frozen=True)
class Config:
    """All settings of a run. `config.NAME` is the value of one that the run's parts have.

    Args:
        given: Those that were named, by name.
        parts: The run's parts by role.
        values: Of every setting of the parts.
        prepared: Those that a prepared folder knows.
    """

    given: Mapping[str, Any] = field(compare=False)
    parts: Mapping[str, type] = field(compare=False)
    values: Mapping[str, Any]
    prepared: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.values:
            raise AttributeError(f"the run has no setting {name}")
        return self.values[name]

    def get(self, name: str, default: Any) -> Any:
        """Returns the value of a setting that the run may lack."""
        return self.values.get(name, default)

    def of(self, part: type) -> dict[str, Any]:
        """Returns the values of a part's settings."""
        return {name: self.values[name] for name in settings.fields(part) if name in self.values}

    @property
    def strategy_name(self) -> str:
        """Of the tf.distribute strategy; a closed form has the default one."""
        return self.get("strategy", "default")

    @property
    def trained(self) -> bool:
        """Returns whether the model is trained, which a closed form is not."""
        return "trainer" in self.parts

    @cached_property
    def data(self) -> DataSettings:
        """Those of the data."""
        return DataSettings(**self.of(AllData) | dict(self.prepared))

    @cached_property
    def evaluation(self) -> EvaluationSettings:
        """Those of the evaluation."""
        return EvaluationSettings(**self.of(Evaluation))

    def defaults(self) -> dict[str, Any]:
        """Returns {setting: its default} over all parts."""
        specs = [spec for part in self.parts.values() for spec in settings.fields(part).values()]
        return {spec.name: spec.metadata["by_task"].get(self.task, spec.default) for spec in specs}

    def flat(self) -> dict[str, Any]:
        """Returns {setting: value} over all parts."""
        return dict(self.values)

    def replace(self, **changes: Any) -> "Config":
        """Returns a copy with other values.

        Raises:
            UsageError: As make_config.
        """
        changed = make_config(**(dict(self.given) | changes))
        return Config(changed.given, changed.parts, changed.values, self.prepared)

    def with_prepared(self, known: Mapping[str, Any]) -> "Config":
        """Returns a copy that knows what its prepared folder does."""
        return Config(self.given, self.parts, self.values, known)

    def flagfile(self) -> str:
        """Returns the settings as a flag file that ends in its checksum, without the workdir."""
        return seal(self.flag_lines())

    def flag_lines(self) -> str:
        """Returns the settings as the lines of a flag file, without the workdir.

        A text that a line would not keep is a JSON string.
        """
        values = {
            name: value
            for name, value in self.values.items()
            if name != "workdir" and value is not None
        }
        return "".join(
            f"{flag_line(name, json.dumps(value) if _is_lost(value) else value)}\n"
            for name, value in values.items()
        )


class AllData(Part):
    """All settings of the data."""

    Settings = DataSettings


def make_config(**given: Any) -> Config:
    """Returns the settings of a run from those that are given by name, the rest at their defaults.

    Raises:
        UsageError: A name is unknown or belongs to no part of the run (the message says which part
            has it), a value has the wrong type or is out of range, or values do not go together.
    """
    try:
        return _make_config(given)
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith("-") else f"--{text}") from None


def _make_config(given: dict[str, Any]) -> Config:
    choices = settings.make(Choices, _some(Choices, given))
    parts = _parts(choices, given)
    names = _names(parts)
    for name in given:
        if name not in names:
            raise UsageError(belongs(name, names))
    values: dict[str, Any] = {}
    for part in parts.values():
        made = settings.make(part, _some(part, given))
        values |= vars(settings.for_task(made, choices.task))
    _check_together(values, parts)
    return Config(given, parts, values)


def _names(parts: Mapping[str, type]) -> set[str]:
    """Returns the settings of a run's parts.

    Raises:
        UsageError: Two parts declare the same name.
    """
    owner: dict[str, type] = {}
    for role, part in parts.items():
        for name in settings.fields(part):
            if name in owner or (role == "model" and name in ("train", "seed")):
                other = owner[name].__name__ if name in owner else "Recommender.from_data"
                raise UsageError(
                    f"{name}: {other} and {part.__name__} both have it. Give the setting of your "
                    "own another name."
                )
            owner[name] = part
    return set(owner)


def parts_of_every_model(given: Mapping[str, Any]) -> dict[str, type]:
    """Returns the parts of a run by role, but for its model, its loss and its optimizer.

    Raises:
        UsageError: A part is unknown.
    """
    choices = settings.make(Choices, _some(Choices, given))
    return _data_parts(choices) | TRAINED | _judging_parts(choices, given)


def _data_parts(choices: Any) -> dict[str, type]:
    source = source_of(choices.dataset)
    parts: dict[str, type] = {"run": Choices, "source": source}
    if source is not Blocks:
        parts |= {"features": Features, "split": TABLES["split"][choices.split]}
    return parts


def _judging_parts(choices: Any, given: Mapping[str, Any]) -> dict[str, type]:
    parts: dict[str, type] = {"full_ranking": FullRanking} if choices.task == "rating" else {}
    if EvaluationSettings(**_some(Evaluation, given)).ranks(choices.task):
        parts["ranking_metrics"] = RankingMetrics
    return parts | {"evaluation": Judging}


def _parts(choices: Any, given: Mapping[str, Any]) -> dict[str, type]:
    """Returns the parts of a run by role."""
    model = model_class(choices.model, choices.task)
    parts = _data_parts(choices) | {"model": model}
    if given.get("gmf_dim") and "gmf_dim" in settings.fields(model):
        parts["pretraining"] = Pretraining
    if not model.closed_form:
        chosen = settings.make(TrainedChoices, _some(TrainedChoices, given))
        chosen = settings.for_task(chosen, choices.task)
        parts |= {
            "choices": TrainedChoices,
            "loss": loss_class(chosen.loss, choices.task),
            "optimizer": _named("optimizer", chosen.optimizer),
        }
        parts |= TRAINED
    return parts | _judging_parts(choices, given)


def model_class(name: str, task: str) -> "type[Recommender]":
    """Returns the model of that name.

    Raises:
        UsageError: There is none, or it does not do the task.
    """
    model = _named("model", name)
    if task not in model.tasks:
        raise UsageError(f"model={name} --task={task}: {name} only does --task={model.tasks[0]}.")
    return model


def loss_class(name: str, task: str) -> "type[Loss]":
    """Returns the loss of that name.

    Raises:
        UsageError: There is none, or it is one of another task.
    """
    loss = _named("loss", name)
    if loss.task != task:
        raise UsageError(
            f"loss={name}: it is a loss of --task={loss.task}, and this run is of --task={task}. "
            "Change one of them, or leave the loss at auto."
        )
    return loss


def _named(kind: str, name: str) -> Any:
    table = TABLES[kind]
    if name in table:
        return table[name]
    if ":" in name:
        part = settings.load_part(f"{kind}={name}", name)
        if not issubclass(part, BASES[kind]):
            raise UsageError(f"{kind}={name}: it is no subclass of {BASES[kind].__name__}.")
        return part
    raise UsageError(f"{kind}={name}: expected one of {', '.join(table)}.{nearest(name, table)}")


def _some(part: type, given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in settings.fields(part)}


def parts_of(given: Mapping[str, Any]) -> dict[str, type]:
    """Returns the parts of the run that some settings ask for, by role.

    Raises:
        UsageError: A part is unknown, or does not do the task.
    """
    return _parts(settings.make(Choices, _some(Choices, given)), given)


def known_fields() -> dict[str, dataclasses.Field]:
    """Returns {name: setting} of all parts that tfrec brings."""
    found: dict[str, dataclasses.Field] = {}
    for _, part in known_parts():
        found = settings.fields(part) | found
    return found


def list_names() -> set[str]:
    """Names of the settings of known parts that are lists."""
    specs = [spec for _, part in known_parts() for spec in settings.fields(part).values()]
    return {spec.name for spec in specs if settings.kind_of(spec)[0] is tuple}


def known_parts() -> Iterator[tuple[str, type]]:
    """(what chooses it, part) of all parts that tfrec brings."""
    yield "", Choices
    for flag, table in TABLES.items():
        for name, part in table.items():
            if name != "auto":  # a split that the data choose
                yield f"--{flag}={name}", part
    yield "all datasets but blocks:FOLDER", Features
    yield "--model=ncf with --gmf_dim", Pretraining
    models = [name for name in MODELS if not MODELS[name].closed_form]  # type: ignore[attr-defined]
    for part in TRAINED.values():
        yield f"models that are trained ({', '.join(models)})", part
    yield "", Judging
    yield "--task=rating", FullRanking
    for flag in ("--task=ranking", "--full_ranking", "--candidates_file"):
        yield flag, RankingMetrics


def belongs(name: str, names: Collection[str]) -> str:
    """Returns why a setting that is none of the run's (`names`) cannot be given: which part has
    it.
    """
    owners = [chooses for chooses, part in known_parts() if name in settings.fields(part)]
    if not owners:
        known = {each for _, part in known_parts() for each in settings.fields(part)}
        return f"{name}: there is no such setting.{nearest(name, known | set(names))}"
    return f"{name}: no part of this run has it. It goes with {_listed(owners)}."


def _listed(owners: list[str]) -> str:
    """--loss=a, --loss=b -> --loss=a or b."""
    by_flag: dict[str, list[str]] = {}
    for owner in dict.fromkeys(owners):
        flag, equals, name = owner.partition("=")
        by_flag.setdefault(flag + equals if flag.startswith("--") else owner, []).append(name)
    found = []
    for flag, names in by_flag.items():
        found.append(flag + " or ".join(filter(None, names)) if flag.startswith("--") else flag)
    return ", ".join(found)


def _check_together(values: Mapping[str, Any], parts: Mapping[str, type]) -> None:
    """What settings of several parts do together."""
    own, split = values["dataset"] == "files", values["split"]
    if values["dataset"].startswith("blocks:"):
        _check_blocks(values)
    elif own and bool(values["interactions"]) == (split == "files"):
        raise UsageError(
            "dataset=files needs --interactions=FILE, or --split=files with --train_file and "
            "--test_file in its place."
        )
    elif split == "files" and (
        values["dataset"].startswith("tfds:") or ("products" in values and not own)
    ):
        raise UsageError("split=files needs --dataset=files or a MovieLens edition.")
    if values.get("strategy") == "parameter_server":
        for name in ("jit_compile", "pretrained"):
            if values.get(name):
                raise UsageError(f"{name} is not supported with --strategy=parameter_server.")


def _check_blocks(values: Mapping[str, Any]) -> None:
    """What needs all training rows in memory and has them from nowhere."""
    for name in ("confidence_power", "recency", "exclude_positives"):
        if values.get(name) and "loss" in values:
            raise UsageError(
                f"{name} needs the training rows in memory: it does not go with "
                "--dataset=blocks:FOLDER."
            )
    if values.get("loss") == "in_batch_softmax" and values["strategy"] == "multi_worker":
        raise UsageError(
            "loss=in_batch_softmax: no worker sees the whole batch with "
            "--dataset=blocks:FOLDER. Take sampled_softmax."
        )


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
