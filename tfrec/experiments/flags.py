"""The settings as absl flags and flag files, made from the parts' settings.

The only place in tfrec that knows absl's flags.
"""

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from tfrec import settings
from tfrec.data import paths
from tfrec.errors import UsageError
from tfrec.experiments import config
from tfrec.experiments.config import Config, flag_line, make_config
from tfrec.experiments.tables import TABLES
from tfrec.settings import Part, setting

LONGEST = 100  # letters of a setting's name, and more

Fields = Mapping[str, dataclasses.Field]


def fields_of(args: list[str]) -> dict[str, dataclasses.Field]:
    """Returns {name: setting} of all parts that tfrec brings, and of those that the arguments
    name.
    """
    found = config.known_fields()
    for part in chosen_parts(args).values():
        found |= settings.fields(part)
    return found


def chosen_parts(args: list[str]) -> dict[str, type]:
    """Returns the parts of the run that the arguments of a command line ask for, by role.

    Of arguments that cannot be read, those of a run without them.

    Raises:
        UsageError: There is no such part, or its file cannot be imported.
    """
    chosen = _given(args, config.Choices, config.TrainedChoices, AsksForPretraining)
    try:
        return config.parts_of(chosen)
    except UsageError as error:
        if any(":" in str(value) for value in chosen.values()):
            raise UsageError(f"--{error}") from None
        return config.parts_of({})  # make_config says what is wrong


class AsksForPretraining(Part):
    """What brings the part Pretraining."""

    @dataclasses.dataclass(frozen=True)
    class Settings:
        gmf_dim: int = setting(0, "as in the settings of ncf")


def _given(args: list[str], *of: type) -> dict[str, Any]:
    """Returns the settings of some parts that a command line gives, whatever else is in it; none
    where it cannot be read.
    """
    values, fields = flags.FlagValues(), dict[str, dataclasses.Field]()
    for part in of:
        fields |= settings.fields(part)
    _define(values, fields)
    try:
        values(["tfrec", *_expanded(args, {})], known_only=True)
    except (UsageError, flags.Error, AttributeError, IndexError, TypeError, ValueError, OSError):
        return {}
    return explicit_flags(values, fields)


def check_files(args: list[str]) -> None:
    """Checks that the user's own files are there, before anything is loaded that takes seconds.

    Raises:
        TfrecError: One is missing.
    """
    given = _given(args, config.AllData)
    try:
        settings.make(config.Choices, {n: given[n] for n in ("dataset", "split") if n in given})
    except UsageError:  # make_config says what is wrong
        return
    names = ["interactions", "products", "users"] if given.get("dataset") == "files" else []
    if given.get("split") == "files":
        names += ["train_file", "test_file", "validation_file"]
    paths.check(given[name] for name in names if given.get(name))


def define_flags(args: list[str], values: flags.FlagValues = flags.FLAGS) -> Fields:
    """One absl flag a setting, of the same name; scripts call this once with their arguments."""
    found = fields_of(args)
    _define(values, found)
    return found


def define_some(fields: Fields, values: flags.FlagValues = flags.FLAGS) -> None:
    """One absl flag for each of some settings."""
    _define(values, fields)


def _define(values: flags.FlagValues, fields: Fields) -> None:
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: _define_list,
    }
    for name, spec in fields.items():
        default = spec.default
        if isinstance(default, tuple):
            default = [str(item) for item in default]
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f" <{'|'.join(choices)}>" if choices else "")
        define[settings.kind_of(spec)[0]](name, default, text, flag_values=values)
        flags.declare_key_flag(name, flag_values=values)


def help_text(args: list[str]) -> str:
    """Returns the settings of the parts that the arguments ask for, a paragraph each, and the names
    of the others.

    Where they name no model, loss or optimizer, those of every run: TensorFlow is not needed then.
    """
    chosen = _given(args, config.Choices, config.TrainedChoices, AsksForPretraining)
    named = chosen.keys() & {"model", "loss", "optimizer", "gmf_dim"}
    if named:
        parts = chosen_parts(args)
    else:
        try:
            parts = config.parts_of_every_model(chosen)
        except UsageError:  # make_config says what is wrong
            parts = config.parts_of_every_model({})
    lines, shown = [], set()
    for role, part in parts.items():
        own = {n: s for n, s in settings.fields(part).items() if n not in shown}
        if own:
            lines += [f"\n{role.replace('_', ' ')} ({part.__name__})", *_paragraphs(own)]
        shown |= set(own)
    lines.append("\nparts; of those that are named --help shows the settings: --model=NAME --help")
    for flag, table in TABLES.items():
        lines += _wrapped(f"--{flag}=" + ", ".join(table), "  ")
    return "\n".join([*lines, "\n  --flagfile=FILE", "        settings from a file"])


def help_of(part: type) -> str:
    """Returns the settings of one part."""
    return "\n".join(_paragraphs(settings.fields(part)))


def _paragraphs(fields: Fields) -> list[str]:
    lines = []
    for name, spec in fields.items():
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f"; one of {', '.join(choices)}" if choices else "")
        lines.append(f"  {flag_line(name, '' if spec.default is None else spec.default)}")
        lines += _wrapped(text, " " * 8)
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent=indent, subsequent_indent=indent)


def explicit_flags(values: flags.FlagValues, fields: Fields) -> dict[str, Any]:
    """Returns the settings that the parsed flags give, by name."""
    names = [name for name in fields if name in values and values[name].present]
    return {name: _from_list(fields[name], values[name].value) for name in names}


def read_flagfile(path: Path, more: Sequence[str] = ()) -> Config:
    """Returns the Config that a flag file holds.

    Args:
        more: Flags that replace some of its.

    Raises:
        UsageError: as make_config, or the file is not a flag file of these settings.
    """
    return from_args([f"--flagfile={path}", *more], f"{path}: ")


def from_args(args: list[str], where: str = "") -> Config:
    """Returns the Config that a command line asks for; a message begins with `where`.

    Raises:
        UsageError: as make_config, or the arguments are not flags of these settings.
    """
    values = flags.FlagValues()
    try:
        fields = define_flags(args, values)
        _, *other = parsed(values, ["tfrec", *args])
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None
    if other:
        raise UsageError(f"{where}{other[0]}: unexpected; settings are given as --NAME=VALUE.")
    return make_config(**explicit_flags(values, fields))


def parsed(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Sets the flags, those of flag files too; returns the arguments that are no flags.

    Raises:
        UsageError: a flag or a flag file that cannot be read.
    """
    places: dict[str, str] = {}
    try:
        return values([argv[0], *_expanded(argv[1:], places)])
    except flags.Error as error:
        raise UsageError(f"{_place(error, places)}{error}") from None
    except (AttributeError, IndexError, TypeError, ValueError, OSError, RecursionError) as error:
        raise UsageError(f"the flags cannot be read ({error}).") from None


def _place(error: flags.Error, places: dict[str, str]) -> str:
    """Returns where in a flag file the setting stands that the error is about; "" where it does
    not.
    """
    name, text = getattr(error, "flagname", None), str(error)
    return next(
        (
            place
            for word, place in places.items()
            if word.partition("=")[0] == name or text.startswith(f"flag --{word}:")
        ),
        "",
    )


def _expanded(args: list[str], places: dict[str, str], within: tuple[str, ...] = ()) -> list[str]:
    """Returns the arguments, with the lines of a flag file in place of its --flagfile.

    `places` learns where these stand.
    """
    found: list[str] = []
    for at, word in enumerate(args):
        name, equals, path = word.partition("=")
        if word == "--":
            return [*found, *args[at:]]
        if name.lstrip("-") != "flagfile" or not word.startswith("-"):
            _check(word)
            found.append(word)
            continue
        if not equals or not path:
            raise UsageError("--flagfile: name the file, as --flagfile=FILE.")
        if path in within:
            raise UsageError(f"--flagfile={path}: it names itself.")
        for number, line in _lines(path):
            place = f"--flagfile={path}, line {number:,}: "
            try:
                inner = _expanded([_plain(line)], places, (*within, path))
            except UsageError as error:
                raise UsageError(f"{place}{error}") from None
            places |= {
                setting.lstrip("-"): place for setting in inner if setting.lstrip("-") not in places
            }
            found += inner
    return found


def _check(word: str) -> None:
    """What absl would end in a traceback for."""
    name = word.lstrip("-").partition("=")[0]
    if word in ("-undefok", "--undefok"):
        raise UsageError("--undefok: it needs a value, as --undefok=NAME.")
    if word.startswith("-") and len(name) > LONGEST:
        raise UsageError(
            f"--{name[:LONGEST]}...: there is no setting whose name has {len(name):,} letters."
        )


def _lines(path: str) -> list[tuple[int, str]]:
    """Returns the settings of a flag file and the numbers of their lines.

    One each, # and // begin a comment.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"--flagfile={path}: byte {error.start + 1:,} is not UTF-8. Is it a flag file, and "
            "whole?"
        ) from None
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--flagfile={path}: cannot be read ({getattr(error, 'strerror', None) or error})."
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    return [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line and not line.startswith(("#", "//"))
    ]


def _plain(line: str) -> str:
    """Returns the line of a flag file, whose text may be a JSON string, as a word."""
    name, _, value = line.partition("=")
    if not value.startswith('"') or name.lstrip("-") in config.list_names():
        return line
    try:
        return f"{name}={json.loads(value)}"
    except ValueError:
        raise UsageError(
            f"{line}: expected a JSON string, where a text begins with a quotation mark."
        ) from None


_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*|([^,]*))(,|$)', re.DOTALL)


class _ListParser(flags.ArgumentParser):
    """Items with commas between them; one in quotation marks is taken as it is."""

    syntactic_help = "a comma separated list"

    def parse(self, argument: Any) -> list[str]:
        if not isinstance(argument, str):
            return list(argument)
        found, at = [], 0
        while argument:
            match = _ITEM.match(argument, at)
            if match is None or (match[1] is None and match[2].startswith('"')):
                raise ValueError("a quotation mark is missing, or one too many")
            found.append(match[2].strip() if match[1] is None else match[1].replace('""', '"'))
            at = match.end()
            if not match[3]:
                break
        return found

    def flag_type(self) -> str:
        return "comma separated list of strings"


def _define_list(name: str, default: Any, text: str, flag_values: flags.FlagValues) -> None:
    flags.DEFINE(_ListParser(), name, default, text, flag_values, flags.CsvListSerializer(","))


def _from_list(spec: dataclasses.Field, value: Any) -> Any:
    """absl's lists hold strings: turn them into the setting's tuple."""
    kind, item, _ = settings.kind_of(spec)
    if kind is not tuple:
        return value
    try:
        return tuple(map(item, value))
    except ValueError:
        raise UsageError(
            f"--{spec.name}={','.join(value)}: expected a comma-separated list of {item.__name__}s."
        ) from None
