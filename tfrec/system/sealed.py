"""Files of a run that say themselves whether they are whole.

A flag file ends in its checksum, a JSON file holds it.
"""

import json
import zlib
from pathlib import Path
from typing import Any

from tfrec.errors import TfrecError, reason

_LAST = "# the file is whole: "


def seal(text: str) -> str:
    """Returns the lines of a flag file, and one more."""
    return f"{text}{_LAST}{zlib.crc32(text.encode()):08x}\n"


def read_text(path: Path, mend: str) -> str:
    """Returns a sealed flag file.

    mend: what to do where it is not whole.

    Raises:
        TfrecError: it is damaged.
    """
    text = _read(path, mend).decode(errors="replace")
    if seal(text[: text.rfind(_LAST)]) != text:
        raise TfrecError(
            f"{path}: the file is damaged: it is not as train.py or tune.py wrote it. {mend}"
        )
    return text


def dumps(values: dict[str, Any], **how: Any) -> str:
    """JSON with the checksum of the rest.

    Raises a ValueError for a number that is not finite, where asked.
    """
    return json.dumps(values | {"checksum": _checksum(values)}, **how)


def read_json(path: Path, mend: str) -> dict[str, Any]:
    """Returns what dumps wrote, or JSON of older code that has no checksum.

    Raises:
        TfrecError: as read_text.
    """
    try:
        values = json.loads(_read(path, mend))
        total = values.pop("checksum", None)
    except (ValueError, AttributeError, RecursionError):
        raise TfrecError(f"{path}: the file is damaged: it is no JSON object. {mend}") from None
    if total not in (None, _checksum(values)):
        raise TfrecError(f"{path}: the file is damaged: its checksum is another one. {mend}")
    return values


def _checksum(values: dict[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}"


def _read(path: Path, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TfrecError(f"{path}: cannot be read ({reason(error)}). {mend}") from None
