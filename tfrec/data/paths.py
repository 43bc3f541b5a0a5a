"""The files that settings name."""

import glob
from collections.abc import Iterable
from pathlib import Path

from tfrec.errors import TfrecError


def several(paths: str) -> list[str]:
    """Returns the files that a flag names.

    With commas between them, or with *, ? and [] for those of such names, in alphabetical order. A
    folder stands for the files in it.
    """
    if Path(paths).expanduser().exists():
        return _inside(paths)
    return [
        file
        for name in paths.split(",")
        for path in sorted(glob.glob(str(Path(name).expanduser()))) or [name]
        for file in _inside(path)
    ]


def _inside(path: str) -> list[str]:
    """Returns the files of a folder, without those that its writer hides; of a file, itself."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [path]
    found = [str(each) for each in sorted(folder.iterdir()) if each.name[0] not in "._"]
    if not found:
        raise TfrecError(f"{path}: the folder holds no files. Is it the right one?")
    return found


def check(paths: Iterable[str]) -> None:
    """Checks that the files are there that some settings name.

    Raises:
        TfrecError: One is not.
    """
    for each in paths:
        for path in several(each):
            if not Path(path).expanduser().exists():
                raise missing(path)


def missing(path: str | Path) -> TfrecError:
    """Returns the error of a file that is not there."""
    return TfrecError(
        f"{path}: there is no such file. Is the path right, and the data set complete?"
    )
