"""Settings: frozen dataclasses that stand beside what reads them.

A part (a model, a loss, an optimizer, ...) is a class with a dataclass `Settings`, whose fields
`setting` makes. Python code gives them as keywords; flags and flag files are made from them.
"""

import dataclasses
import importlib
import importlib.util
import math
import sys
import types
import typing
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from tfrec.errors import UsageError, nearest
from tfrec.system import quiet


def setting(
    default: Any,
    help: str,
    choices: tuple[str, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
    by_task: Mapping[str, Any] | None = None,
    picks: tuple[float, ...] = (),
) -> Any:
    """Declares a setting: a field of a frozen dataclass.

    Args:
        default: Its value where none is given.
        help: One line for people.
        choices: What a string, or each item of a list of strings, may be; (): any.
        low, high: Bounds of a number, or of each item of a list of numbers, inclusive.
        by_task: What the default stands for where it depends on the task, {task: value}.
        picks: Of a closed form: values among which a run picks on its validation rows where the
            setting is unset; the first where there are none.
    """
    metadata = {"help": help, "choices": choices, "low": low, "high": high}
    metadata |= {"by_task": by_task or {}, "picks": picks}
    return dataclasses.field(default=default, metadata=metadata)


KINDS = (bool, int, float, str)  # of a setting, or of the items of a tuple


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """Of a part that has none."""


class Part:
    """A class with settings, which its constructor takes as keywords.

    Raises:
        UsageError: A setting is unknown, has the wrong type or is out of bounds.
    """

    Settings: ClassVar[type] = NoSettings

    def __init__(self, **settings: Any) -> None:
        self.settings: Any = make(type(self), settings)


def make(part: type, values: Mapping[str, Any]) -> Any:
    """Returns the part's Settings with these values, the others at their defaults.

    Raises:
        UsageError: A setting is unknown, has the wrong type or is out of bounds.
    """
    known, taken = fields(part), {}
    for name, value in values.items():
        if name not in known:
            raise UsageError(f"{name}: {part.__name__} has no such setting.{nearest(name, known)}")
        taken[name] = _as_tuple(known[name], value)
        check(known[name], taken[name])
    return part.Settings(**taken)  # type: ignore[attr-defined]


def for_task(made: Any, task: str) -> Any:
    """Returns the settings, with defaults that depend on the task filled in."""
    values = {}
    for field in dataclasses.fields(made):
        by_task = field.metadata["by_task"]
        if task in by_task and getattr(made, field.name) == field.default:
            values[field.name] = by_task[task]
    return dataclasses.replace(made, **values)


def filled(made: Any, task: str) -> Any:
    """Returns the settings as `for_task`, with those that nobody picked at their first pick."""
    unset = [field for field in dataclasses.fields(made) if getattr(made, field.name) is None]
    picks = {field.name: field.metadata["picks"] for field in unset}
    first = {name: values[0] for name, values in picks.items() if values}
    return dataclasses.replace(for_task(made, task), **first)


def _as_tuple(spec: dataclasses.Field, value: Any) -> Any:
    """Returns a list, a dict, "one,or,two" or one item as the tuple that the setting is.

    Other values stay as they are.
    """
    kind, item, _ = kind_of(spec)
    if kind is not tuple:
        return value
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        return tuple(f"{name}:{of_name}" for name, of_name in value.items())
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if _is(value, item) else value


def load_part(where: str, text: str) -> type:
    """Returns the class that path/to/file.py:Class or package.module:Class names.

    Args:
        where: What an error begins with.

    Raises:
        UsageError: There is no such file, module or class, or it cannot be imported.
    """
    place, _, name = text.rpartition(":")
    quiet.import_tensorflow()  # which the part is about to import
    try:
        if place.endswith(".py"):
            module = _load_file(Path(place))
        else:
            module = importlib.import_module(place)
    except Exception as error:
        raise UsageError(f"{where}: {place} cannot be imported ({error}).") from None
    found = getattr(module, name, None)
    if not isinstance(found, type):
        raise UsageError(
            f"{where}: there is no class {name} in {place}.{nearest(name, vars(module))}"
        )
    return found


def _load_file(path: Path) -> types.ModuleType:
    """Returns the module of a file, loaded once a process and content."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError("there is no such file")
    name = f"tfrec_part_{zlib.crc32(path.read_bytes(), zlib.crc32(str(path).encode())):08x}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class Table(Mapping[str, type]):
    """Parts by name; the module of each is imported when it is asked for.

    Args:
        places: {name: package.module:Class}
    """

    def __init__(self, places: Mapping[str, str]) -> None:
        self.places = places

    def __getitem__(self, name: str) -> type:
        module, _, inside = self.places[name].partition(":")
        quiet.import_tensorflow()
        return getattr(importlib.import_module(module), inside)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def fields(part: type) -> dict[str, dataclasses.Field]:
    """Returns {name: field} of the settings of a part.

    Raises:
        UsageError: One is not declared by `setting`, or its type is none that a flag can have.
    """
    declared: Any = part.Settings  # type: ignore[attr-defined]
    found = {field.name: field for field in dataclasses.fields(declared)}
    for name, field in found.items():
        if isinstance(field.type, str):  # from __future__ import annotations
            field.type = typing.get_type_hints(declared)[name]
        if "help" not in field.metadata or not set(kind_of(field)[:2]) <= {*KINDS, tuple}:
            raise UsageError(
                f"{name}: a setting of {part.__name__} is declared by tfrec.setting(default, help) "
                "and is a bool, int, float or str, or a tuple of these."
            )
    return found


def kind_of(spec: dataclasses.Field) -> tuple[type, type, bool]:
    """Returns what a setting is: (type, type of the items where it is a tuple, whether it may be
    None).
    """
    hint = spec.type
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        return tuple, typing.get_args(hint)[0], optional
    return hint, hint, optional  # type: ignore[return-value]


def check(spec: dataclasses.Field, value: Any) -> None:
    """Checks one value of a setting, whatever the others are.

    Raises:
        UsageError: It has the wrong type or is out of bounds.
    """
    kind, item, optional = kind_of(spec)
    if value is None and optional:
        return
    if not _is(value, kind) or (kind is tuple and not all(_is(part, item) for part in value)):
        expected = f"tuple of {item.__name__}" if kind is tuple else kind.__name__
        raise UsageError(f"{spec.name}={value!r}: expected {expected}.")
    if kind is tuple and not value and spec.default:
        raise UsageError(f"{spec.name}: the list is empty.")
    for part in value if kind is tuple else (value,):
        if isinstance(part, str):
            _check_text(spec, part)
        else:
            _check_bounds(spec, part)


def _check_text(spec: dataclasses.Field, text: str) -> None:
    if set(text) & {"\n", "\r", "\0"}:
        raise UsageError(f"{spec.name}={text!r}: a line break or NUL cannot be part of a setting.")
    if not text.isascii() and text.encode(errors="replace").decode() != text:
        raise UsageError(f"{spec.name}={text!r}: expected text in UTF-8.")
    choices = spec.metadata["choices"]
    if choices and text not in choices and not names_any(text, choices):
        raise UsageError(
            f"{spec.name}={text}: expected one of {', '.join(choices)}.{nearest(text, choices)}"
        )


def names_any(text: str, choices: Iterable[str]) -> bool:
    """Returns whether a choice such as tfds:NAME stands for the text: what follows its colon is
    any.
    """
    kinds = [choice.partition(":")[0] for choice in choices if choice.partition(":")[2]]
    kind, _, name = text.partition(":")
    return kind in kinds and bool(name)


def _check_bounds(spec: dataclasses.Field, number: float) -> None:
    low, high = spec.metadata["low"], spec.metadata["high"]
    if number < low:
        raise UsageError(f"{spec.name}={number}: expected at least {low:g}.")
    if number > high:
        raise UsageError(f"{spec.name}={number}: expected at most {high:g}.")


def _is(value: Any, kind: type) -> bool:
    """isinstance, where a bool is no int, an int is a float, and a float is finite."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, kind)
