"""Folders and files that a command writes for its user.

Nothing that is not tfrec's own is replaced, and what is there is whole.
"""

import contextlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from tfrec.errors import TfrecError, UsageError, reason
from tfrec.system.locked import locked

MARK = "tfrec.json"  # in an export: its files and their checksums
EXPORT = {"saved_model.pb", "fingerprint.pb", "variables", "assets", MARK}


def check_export(output: Path, argument: str = "folder") -> None:
    """Raises where an export into the folder `output` would replace anything but an empty folder or
    an export of tfrec's.

    Args:
        argument: What names the folder, for errors.

    Raises:
        UsageError: it holds something else. TfrecError: it is no folder.
    """
    flag, target = f"{argument}={output}", _resolved(output)
    check_name(output, flag)
    if target == Path.cwd():
        raise TfrecError(f"{flag}: cannot be written (it is the working folder). Take another one.")
    if target.is_dir():
        there = set(os.listdir(target))
        ours = (target / MARK).exists() or (
            target.parent / "config.flags"
        ).exists()  # older exports have no mark
        if there and not (ours and there <= EXPORT):
            raise UsageError(
                f"{flag}: the folder holds something else than an export of tfrec's. Take another "
                "folder, or empty it."
            )
    elif target.exists():
        raise TfrecError(f"{flag}: cannot be written (it is a file). Take a folder.")


def check_name(folder: Path, flag: str) -> None:
    """Raises a UsageError where TensorFlow would write into the folder, and take its name for a
    pattern when it reads from there.
    """
    if set(str(folder)) & set("*?[\\"):
        raise UsageError(
            f"{flag}: TensorFlow takes *, ?, [ and \\ for a pattern. Take a name without them."
        )


@contextlib.contextmanager
def exported(output: Path) -> Iterator[Path]:
    """A folder that takes the place of the export `output` in the end, or goes; what killed
    processes left of such is removed.

    Raises:
        UsageError, TfrecError: as check_export; a TfrecError also where it cannot be written.
    """
    check_export(output)
    flag, target = str(output), _resolved(output)
    draft = target.with_name(f"{target.name}.draft-{os.getpid()}")
    with whole_or_not(draft, flag), locked(draft, flag):
        _clear_drafts(target)
        yield draft
        _seal(draft)
        check_export(output)
        if target.is_dir():
            shutil.rmtree(target)
        draft.rename(target)


@contextlib.contextmanager
def whole_or_not(draft: Path, flag: str) -> Iterator[None]:
    """The draft is renamed within, or it goes.

    What the file system, or TensorFlow in its place, complains about is one line.
    """
    try:
        yield
    except Exception as error:
        why = reason(error)
        if why is None:
            raise
        raise TfrecError(f"{flag}: cannot be written ({why}).") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def check_file(output: Path, flag: str, ours: bool) -> None:
    """Raises where a file is there that is neither empty nor `ours`."""
    if output.is_dir():
        raise UsageError(f"{flag}: it is a folder. Take a file.")
    if output.exists() and output.stat().st_size and not ours:
        raise UsageError(
            f"{flag}: the file is there, and this command did not write it. Take another name, or "
            "remove it."
        )


def check_whole(folder: Path, mend: str) -> None:
    """Raises a TfrecError where a file of the export has changed since it was written; older
    exports do not say.

    mend: what to do about it.
    """
    if not (folder / MARK).exists():
        return
    try:
        sums = dict(json.loads((folder / MARK).read_text()))
        broken = next(
            (name for name, total in sums.items() if _checksum(folder / name) != total), None
        )
    except (OSError, ValueError, TypeError) as error:
        raise TfrecError(
            f"{folder}: no readable SavedModel ({reason(error) or f'{MARK} is damaged'}). {mend}"
        ) from None
    if broken or "saved_model.pb" not in sums:
        raise TfrecError(f"{folder / (broken or MARK)}: the file is damaged. {mend}")


def _seal(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {str(path.relative_to(folder)): _checksum(path) for path in files}
    (folder / MARK).write_text(json.dumps(sums, indent=1) + "\n")


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while piece := file.read(2**24):
            total = zlib.crc32(piece, total)
    return total


def _clear_drafts(target: Path) -> None:
    """Removes drafts of the folder that no living process has."""
    name = re.compile(re.escape(target.name) + r"\.draft-\d+")
    for left in target.parent.iterdir():
        if (
            name.fullmatch(left.name)
            and left.is_dir()
            and left.name != f"{target.name}.draft-{os.getpid()}"
        ):
            with contextlib.suppress(UsageError), locked(left, str(left)):
                shutil.rmtree(left)


def _resolved(output: Path) -> Path:
    try:
        return output.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise TfrecError(
            f"--output={output}: cannot be written ({reason(error) or error})."
        ) from None
