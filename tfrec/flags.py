"""The settings as absl flags and flag files, made from tfrec/config.py. The only place in tfrec that knows absl's flags."""

import dataclasses
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from absl import flags

from tfrec.config import FIELDS, GROUPS, Config, flag_line, kind_of, make_config
from tfrec.errors import UsageError


def define_flags(values: flags.FlagValues = flags.FLAGS, names: Collection[str] = tuple(FIELDS)) -> None:
    """One absl flag a setting (those in `names`), of the same name; scripts call this once."""
    define = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
        tuple: flags.DEFINE_list,
    }
    for name in names:
        spec = FIELDS[name]
        default = [str(item) for item in spec.default] if isinstance(spec.default, tuple) else spec.default
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
            lines += [f"  {default}", *textwrap.wrap(text, 110, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    if len(groups) == len(GROUPS):
        lines += ["\n  --workdir=", f"        {FIELDS['workdir'].metadata['help']}"]
    return "\n".join([*lines, "  --flagfile=FILE", "        settings from a file"])


def from_flags(values: flags.FlagValues) -> Config:
    """The Config that the parsed flags ask for; what is not defined as a flag is at its default.

    Raises:
        UsageError: as make_config.
    """
    return make_config(**{name: _from_list(name, values[name].value) for name in FIELDS if name in values})


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
        _, *other = values(["tfrec", *words])
    except flags.Error as error:
        raise UsageError(f"{where}{error}") from None
    if other:
        raise UsageError(f"{where}{other[0]}: unexpected; settings are given as --NAME=VALUE.")
    return from_flags(values)


def _from_list(name: str, value: Any) -> Any:
    """absl's lists hold strings: turn them into the setting's tuple."""
    kind, item, _ = kind_of(name)
    if kind is not tuple:
        return value
    try:
        return tuple(item(part.strip()) for part in value)
    except ValueError:
        raise UsageError(f"--{name}={','.join(value)}: expected a comma-separated list of {item.__name__}s.") from None
