"""Rows as aligned tables."""

import os
import platform
from importlib.metadata import version
from typing import Any

from tfrec.system.machine import cores
from tfrec.system.text import aligned

LEFT = ("model", "what", "unit")


def machine() -> str:
    """A line about where and with what the figures were taken.

    The load is that of others, before it begins.
    """
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "numpy"))
    return (
        f"{cpu}, {cores()} cores, load {os.getloadavg()[0]:.1f}; Python "
        f"{platform.python_version()}, {versions}"
    )


def table(rows: list[dict[str, Any]]) -> str:
    """A suite's rows under a line of heads.

    A peer is a column, and beside it how many times faster tfrec is.
    """
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    lines = [names, *([_cell(row.get(name)) for name in names] for row in flat)]
    return aligned(lines, [at for at, name in enumerate(names) if name in LEFT])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in row.items() if name not in ("suite", "peers")}
    for name, speed in row.get("peers", {}).items():
        flat |= {name: speed, f"x {name}": row["tfrec"] / speed}
    return flat


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
