"""Tables for the console."""

import statistics
from collections.abc import Collection


def aligned(lines: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Lines of cells, the first of them the heads; the columns in `left` are words, the others numbers, which end at the same place."""
    widths = [max(map(len, column)) for column in zip(*lines)]

    def line(cells: list[str]) -> str:
        padded = (cell.ljust(width) if at in left else cell.rjust(width) for at, (cell, width) in enumerate(zip(cells, widths)))
        return "  ".join(padded).rstrip()

    return "\n".join(map(line, lines))


def spread(values: list[float | None]) -> str:
    """Mean ± sample standard deviation of those that are known; a dash where none is."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{statistics.fmean(known):.4f}" + (f" ± {statistics.stdev(known):.4f}" if len(known) > 1 else "")
