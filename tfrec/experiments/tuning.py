"""Search for settings. Each trial is a run that stops before its test rows, and is judged by its
validation metric alone.

random: every trial is trained for --epochs. halving (successive halving, eta 3): all trials are
trained for a small share of --epochs, the best third of them anew for three times as many, and so
on up to --epochs. Source: K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and
Hyperparameter Optimization", 2016.
"""

import contextlib
import itertools
import math
import time
import zlib
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tfrec.errors import Diverged, Preempted, TfrecError, UsageError, nearest
from tfrec.experiments import loading, run, tensorboard, workdirs
from tfrec.experiments.config import TRAINED, Choices, Config, belongs, known_fields, parts_of
from tfrec.experiments.parts import dashes
from tfrec.experiments.tables import LOSSES, MODELS, OPTIMIZERS, TABLES
from tfrec.settings import check, fields, kind_of
from tfrec.system import sealed
from tfrec.system.text import aligned, said, shown
from tfrec.training import strategies

ETA = 3
FIELDS = known_fields()
SEARCHABLE = tuple(
    name
    for part in (
        *MODELS.values(),
        *LOSSES.values(),
        *OPTIMIZERS.values(),
        *TRAINED.values(),
        Choices,
    )
    for name in fields(part)
    if name not in ("task", "seed", "workdir", "dataset", "split")
)
NOTATION = "expected NAME=LOW..HIGH, NAME=log:LOW..HIGH or NAME=A,B,C"


@dataclass(frozen=True)
class Range:
    """The values that a setting is drawn from: choices, or low..high, both ends included."""

    text: str
    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = field(default=False, compare=False)

    def draw(self, seed: int, trial: int) -> Any:
        """Returns the value of a trial, a pure function of range, seed and trial.

        Another range beside it changes nothing. Floats have three digits.
        """
        random = np.random.default_rng([seed, trial, zlib.crc32(self.name.encode())])
        if self.choices:
            return self.choices[random.integers(len(self.choices))]
        low, high = self.low, self.high + self.whole
        share = random.random()
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        return (
            min(math.floor(value), int(self.high))
            if self.whole
            else min(max(float(f"{value:.3g}"), self.low), self.high)
        )


@dataclass(frozen=True)
class Trial:
    """A finished trial: its number and epochs, its drawn settings, and its validation metric, or
    why there is none.
    """

    number: int
    epochs: int
    settings: dict[str, Any]
    value: float | None
    best_epoch: int
    seconds: float
    error: str


def parse(text: str, own: Mapping[str, Field] = {}) -> Range:
    """Returns a --range: learning_rate=log:1e-4..1e-2, epochs=5..30 or embedding_dim=16,32,64;
    the items of a list with + (terms=bias+dot,bias).

    Args:
        own: Settings of the run's parts that are the user's own.

    Raises:
        UsageError: There is no such setting (the nearest is named), it makes the rows or the
            metric, or it cannot have these values.
    """
    name, _, values = text.partition("=")
    known, searchable = {**FIELDS, **own}, {*SEARCHABLE, *own}
    if name not in known:
        raise UsageError(f"--range={text}: there is no setting {name}.{nearest(name, searchable)}")
    if name not in searchable:
        raise UsageError(
            f"--range={text}: only settings of the model and of training can be searched, or "
            "trials could not be compared."
        )
    if ".." not in values:
        return Range(
            text, name, choices=tuple(_value(text, known[name], part) for part in values.split(","))
        )
    kind = kind_of(known[name])[0]
    if kind not in (int, float):
        raise UsageError(f"--range={text}: {name} is not a number. Give choices: {name}=A,B.")
    log = values.startswith("log:")
    ends = values.removeprefix("log:").split("..", 1)
    low, high = (_value(text, known[name], part) for part in ends)
    if not low < high:
        raise UsageError(f"--range={text}: {low} is not below {high}.")
    if log and low <= 0:
        raise UsageError(f"--range={text}: a logarithmic range begins above 0.")
    return Range(text, name, low=low, high=high, log=log, whole=kind is int)


def _value(text: str, spec: Field, part: str) -> Any:
    kind, item, _ = kind_of(spec)
    name = spec.name
    bools = {"true": True, "false": False}
    try:
        if kind is tuple:
            value: Any = tuple(item(piece) for piece in part.split("+"))
        else:
            value = bools[part] if kind is bool else kind(part)
    except (KeyError, ValueError):
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[item]
        raise UsageError(
            f"--range={text}: {part or 'nothing'} is not {wanted}; {NOTATION}."
        ) from None
    if part == "":
        raise UsageError(f"--range={text}: {NOTATION}.")
    try:
        check(spec, value)
    except UsageError as error:
        raise UsageError(f"--range={text}: --{error}") from None
    known = (*TABLES.get(name, ()), "auto")
    if name in TABLES and value not in known and ":" not in value:
        raise UsageError(f"--range={text}: there is no {name} {value}.{nearest(value, known)}")
    return value


def rungs(how: str, trials: int, epochs: int) -> list[int]:
    """Epochs of each rung, rising to `epochs`; one rung for random."""
    result = [epochs]
    while how == "halving" and trials >= ETA ** len(result) and result[0] >= ETA:
        result.insert(0, result[0] // ETA)
    return result


def search(config: Config, ranges: list[Range], trials: int, how: str, command: str) -> str:
    """Runs the trials that config.workdir does not hold yet, writes best.flags there, and returns
    the table of trials, best first.

    Args:
        command: what to write into best.flags as the command that found them.

    Raises:
        UsageError: ranges that clash, no validation rows, or a folder that holds another search.
        TfrecError: the data are broken, or every trial failed.
    """
    names = [of.name for of in ranges]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--range={name}: stands there twice.")
    if how == "halving" and "epochs" in names:
        raise UsageError(
            "--search=halving chooses the epochs itself, up to --epochs; leave out --range=epochs."
        )
    _check_owned(config, ranges)
    if config.get("strategy", "") in strategies.CLUSTER:
        raise UsageError(
            f"--strategy={config.strategy_name}: a search runs on one machine. Take default, or "
            "mirrored."
        )
    if not config.workdir:
        config = config.replace(workdir=workdirs.default(config, "tune-"))
    split, config = loading.load(
        config
    )  # once, so that broken data end the search and not each of its trials
    if not len(split.validation):
        raise UsageError(
            "--validation_fraction=0: trials are judged on validation rows, and there are none. "
            "Take 0.1."
        )
    steps = rungs(how, trials, config.get("epochs", 1))
    searched = (
        "".join(f"--range={of.text}\n" for of in sorted(ranges, key=lambda of: of.name))
        + f"--search={how}\n"
    )
    text = sealed.seal(config.flag_lines() + searched)
    with workdirs.open_workdir_as(Path(config.workdir), "search.flags", text) as workdir:
        print(f"--workdir={said(str(workdir))}")
        (workdir / "trials").mkdir(exist_ok=True)
        choices = {of.name: of.choices for of in ranges if of.choices} | (
            {"epochs": tuple(steps)} if len(steps) > 1 else {}
        )
        objective, more_is_better = run.objective(config)
        tensorboard.search(
            workdir,
            choices,
            {of.name: (of.low, of.high) for of in ranges if not of.choices},
            objective,
        )
        numbers, done = list(range(trials)), []
        for epochs in steps:
            rung = [_trial(config, ranges, number, epochs, len(steps) > 1) for number in numbers]
            done += rung
            numbers = [
                trial.number for trial in _best_first(rung, more_is_better) if not trial.error
            ][: max(1, len(rung) // ETA)]
        done = _best_first(done, more_is_better)
        if done[0].error:
            raise TfrecError(f"every trial failed; trial {done[0].number}: {done[0].error}")
        workdirs.write(workdir / "best.flags", _best_flags(config, done, objective, command))
    table = _table(done, names, objective, len(steps) > 1)
    return f"\n{table}\n{said(str(workdir / 'best.flags'))} holds the best"


def _trial(config: Config, ranges: list[Range], number: int, epochs: int, by_rungs: bool) -> Trial:
    """Runs it, unless its result is there.

    That it diverged is a result; another failure may pass, and leaves none.
    """
    folder = (
        Path(config.workdir)
        / "trials"
        / (f"{number:03}-epochs-{epochs}" if by_rungs else f"{number:03}")
    )
    settings = _drawn(config, ranges, number)
    objective, _ = run.objective(config)
    file = folder.with_suffix(".json")
    if file.exists():
        trial = Trial(
            **sealed.read_json(file, "Remove it, and the trial is made again.")
            | {"settings": settings}
        )
    else:
        value, best_epoch, error, is_result, began = None, 0, "", True, time.monotonic()
        with open(folder.with_suffix(".log"), "a") as log, contextlib.redirect_stdout(log):
            try:
                result = run.validate(
                    _settled(config, epochs, settings).replace(workdir=str(folder))
                )
                value, best_epoch = (
                    result["validation"].get(objective, math.nan),
                    result["train"]["best_epoch"],
                )
                if not math.isfinite(value):
                    raise Diverged(f"validation {objective} is not finite.")
                tensorboard.result(
                    folder / "logs",
                    settings | ({"epochs": epochs} if by_rungs else {}),
                    {f"validation {objective}": value},
                    best_epoch,
                )
            except Preempted:
                raise
            except (TfrecError, tf.errors.OpError) as failure:
                value, error, is_result = (
                    None,
                    str(failure).splitlines()[0],
                    isinstance(failure, Diverged),
                )
        tf.keras.backend.clear_session()
        trial = Trial(number, epochs, settings, value, best_epoch, time.monotonic() - began, error)
        if is_result:
            workdirs.write(file, sealed.dumps(asdict(trial), indent=2) + "\n")
    drawn = "  ".join(f"{name}={_word(value)}" for name, value in settings.items())
    rung = f" to epoch {epochs}" if by_rungs else ""
    print(f"trial {trial.number}{rung}: {_shown(trial)}  {said(drawn)}", flush=True)
    return trial


def _check_owned(config: Config, ranges: list[Range]) -> None:
    """Raises UsageError for a range of a setting that no trial can have."""
    choosing = [of for of in ranges if of.name in TABLES]
    owned: set[str] = set()
    for values in itertools.product(*(of.choices for of in choosing)):
        chosen = {of.name: value for of, value in zip(choosing, values)}
        with contextlib.suppress(UsageError):  # a loss of another task: the trial says so
            owned |= _names(config, chosen)
    for of in ranges:
        if owned and of.name not in owned:
            raise UsageError(f"--range={belongs(of.name, owned)}")


def _drawn(config: Config, ranges: list[Range], number: int) -> dict[str, Any]:
    """Returns what a trial draws; a setting that its parts lack is left out."""
    values = {of.name: of.draw(config.get("seed", 0), number) for of in ranges}
    try:
        names = _names(config, values)
    except UsageError:  # the trial says so
        return values
    return {name: value for name, value in values.items() if name in names}


def _names(config: Config, values: dict[str, Any]) -> set[str]:
    """Returns the settings that a run with these values has."""
    with dashes():
        parts = parts_of(dict(config.given) | values)
    return {name for part in parts.values() for name in fields(part)}


def _settled(config: Config, epochs: int, settings: dict[str, Any]) -> Config:
    """Returns the settings of a trial."""
    own = {"epochs": epochs} if "epochs" in _names(config, settings) else {}
    return config.replace(**own | settings)


def _best_first(trials: list[Trial], more_is_better: bool) -> list[Trial]:
    sign = -1 if more_is_better else 1
    return sorted(trials, key=lambda trial: math.inf if trial.value is None else sign * trial.value)


def _best_flags(config: Config, done: list[Trial], objective: str, command: str) -> str:
    best = done[0]
    settled = _settled(config, best.epochs, best.settings)
    count = f"{len(done)} trials" if len(done) > 1 else "1 trial"
    head = [
        f"The best of {count} by validation {objective}, {best.value:.4f}: trial {best.number}, "
        f"kept at epoch {best.best_epoch}.",
        f"Found by: {command}",
        f"python scripts/train.py --flagfile={Path(config.workdir) / 'best.flags'}",
    ]
    return "".join(f"# {shown(line)}\n" for line in head) + settled.flagfile()


def _table(trials: list[Trial], names: list[str], objective: str, by_rungs: bool) -> str:
    """Best first; below it, why trials failed."""
    lines = [
        [
            "trial",
            *(["epochs"] if by_rungs else []),
            f"validation {objective}",
            "best epoch",
            "seconds",
            *names,
        ]
    ]
    for trial in trials:
        epochs = [str(trial.epochs)] if by_rungs else []
        kept = "-" if trial.error else str(trial.best_epoch)
        lines.append(
            [
                str(trial.number),
                *epochs,
                _shown(trial),
                kept,
                f"{trial.seconds:.0f}",
                *(_word(trial.settings.get(n, "-")) for n in names),
            ]
        )
    failed = [
        f"trial {trial.number} failed: {said(trial.error)}" for trial in trials if trial.error
    ]
    return "\n".join([aligned(lines, left=()), *failed])


def _shown(trial: Trial) -> str:
    return "failed" if trial.value is None else f"{trial.value:.4f}"


def _word(value: Any) -> str:
    """As in a --range."""
    return (
        "+".join(map(str, value))
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
    )
