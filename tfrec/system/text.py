"""Texts, and tables of them for the console."""

import html
import statistics
from collections.abc import Collection

import numpy as np


def as_texts(ids: np.ndarray) -> np.ndarray:
    """Ids of either kind as Python's texts, object [n].

    In numpy's own each would take as much memory as the longest.
    """
    return np.array([str(each) for each in ids], object)


def aligned(lines: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Lines of cells, the first of them the heads.

    The columns in `left` are words, the others numbers, which end at the same place.
    """
    lines = [[shown(cell) for cell in cells] for cells in lines]
    widths = [max(map(len, column)) for column in zip(*lines)]

    def line(cells: list[str]) -> str:
        padded = (
            cell.ljust(width) if at in left else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))


def shown(text: str) -> str:
    """Text from data, for the console.

    What would steer a terminal, break a line or turn the reading direction is escaped.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def cut(text: str, most: int = 600) -> str:
    """At most so many characters of it, from its beginning and its end."""
    return text if len(text) <= most else f"{text[: most - 205]} ... {text[-200:]}"


def said(text: str) -> str:
    """Returns a line for the console, whatever stands in it."""
    return cut(shown(text))


def markdown(text: str) -> str:
    """Text from data, for a cell of Markdown that shows it as it is."""
    escaped = html.escape(shown(text), quote=False)
    return "".join(
        f"&#{ord(letter)};" if letter in "\\`*_{}[]()#+!|~:" else letter for letter in escaped
    )


def spread(values: list[float | None]) -> str:
    """Mean ± sample standard deviation of those that are known; a dash where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.4f}" + (
        f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else ""
    )


def number(count: int, what: str) -> str:
    """Returns "1 epoch", "2 epochs" and so on."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
