"""The settings as absl flags and flag files, made from tfrec/config.py.

The only place in tfrec that knows absl's flags.
"""

import dataclasses
import json
import re
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import flags

from tfrec.config import FIELDS, GROUPS, Config, flag_line, kind_of, make_config
from tfrec.errors import UsageError

LONGEST = 100  # letters of a setting's name, and more


def define_flags(
    values: flags.FlagValues = flags.FLAGS, names: Collection[str] = tuple(FIELDS)
) -> None:
    """One absl flag a setting (those in `names`), of the same name; scripts call this once."""
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: _define_list,
    }
    for name in names:
        spec = FIELDS[name]
        default = (
            [str(item) for item in spec.default]
            if isinstance(spec.default, tuple)
            else spec.default
        )
        choices = spec.metadata["choices"]
        text = spec.metadata["help"] + (f" <{'|'.join(choices)}>" if choices else "")
        define[kind_of(name)[0]](name, default, text, flag_values=values)
        flags.declare_key_flag(name, flag_values=values)


def help(groups: Collection[str] = tuple(GROUPS)) -> str:
    """All settings of the groups, a paragraph each."""
    lines = []
    for group in groups:
        lines.append(f"\n{group}")
        for spec in dataclasses.fields(GROUPS[group]):
            choices = spec.metadata["choices"]
            text = spec.metadata["help"] + (f"; one of {', '.join(choices)}" if choices else "")
            default = flag_line(spec.name, "" if spec.default is None else spec.default)
            lines += [
                f"  {default}",
                *textwrap.wrap(text, 110, initial_indent=" " * 8, subsequent_indent=" " * 8),
            ]
    if len(groups) == len(GROUPS):
        lines += ["\n  --workdir=", f"        {FIELDS['workdir'].metadata['help']}"]
    return "\n".join([*lines, "  --flagfile=FILE", "        settings from a file"])


def from_flags(values: flags.FlagValues) -> Config:
    """The Config that the parsed flags ask for; what is not defined as a flag is at its default.

    Raises:
        UsageError: as make_config.
    """
    return make_config(
        **{name: _from_list(name, values[name].value) for name in FIELDS if name in values}
    )


def read_flagfile(path: Path) -> Config:
    """The Config that a flag file holds.

    Raises:
        UsageError: as make_config, or the file is not a flag file of these settings.
    """
    return from_words([f"--flagfile={path}"], f"{path}: ")


def from_words(words: list[str], where: str = "") -> Config:
    """The Config that the words of a command line ask for; a message begins with `where`.

    Raises:
        UsageError: as make_config, or the words are not flags of these settings.
    """
    values = flags.FlagValues()
    define_flags(values)
    try:
        _, *other = parsed(values, ["tfrec", *words])
    except UsageError as error:
        raise UsageError(f"{where}{error}") from None
    if other:
        raise UsageError(f"{where}{other[0]}: unexpected; settings are given as --NAME=VALUE.")
    return from_flags(values)


def parsed(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Sets the flags, those of flag files too; returns the words that are no flags.

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
    """Where in a flag file the setting stands that the error is about; "" where it does not."""
    name, text = getattr(error, "flagname", None), str(error)
    return next(
        (
            place
            for word, place in places.items()
            if word.partition("=")[0] == name or text.startswith(f"flag --{word}:")
        ),
        "",
    )


def _expanded(words: list[str], places: dict[str, str], within: tuple[str, ...] = ()) -> list[str]:
    """The words, with the lines of a flag file in place of its --flagfile.

    `places` learns where these stand.
    """
    found: list[str] = []
    for at, word in enumerate(words):
        name, equals, path = word.partition("=")
        if word == "--":
            return [*found, *words[at:]]
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
    """The settings of a flag file and the numbers of their lines.

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
    """The line of a flag file, whose text may be a JSON string, as a word."""
    name, _, value = line.partition("=")
    if (
        not value.startswith('"')
        or FIELDS.get(name.lstrip("-")) is None
        or kind_of(name.lstrip("-"))[0] is not str
    ):
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


def _from_list(name: str, value: Any) -> Any:
    """absl's lists hold strings: turn them into the setting's tuple."""
    kind, item, _ = kind_of(name)
    if kind is not tuple:
        return value
    try:
        return tuple(map(item, value))
    except ValueError:
        raise UsageError(
            f"--{name}={','.join(value)}: expected a comma-separated list of {item.__name__}s."
        ) from None
