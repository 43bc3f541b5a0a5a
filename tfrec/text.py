"""Tables for the console."""

from collections.abc import Collection


def aligned(lines: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Lines of cells, the first of them the heads; the columns in `left` are words, the others numbers, which end at the same place."""
    widths = [max(map(len, column)) for column in zip(*lines)]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(zip(cells, widths)))
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))
