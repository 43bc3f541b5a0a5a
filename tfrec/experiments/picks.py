"""Settings of closed forms that are left open, such as ease_l2: a short search on the validation
rows picks them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from tfrec import settings
from tfrec.experiments.config import Config

Picked = dict[str, Any]


def left_open(config: Config) -> dict[str, tuple[float, ...]]:
    """Returns {setting of a closed form: the values that may be picked}."""
    model = config.parts["model"]
    if not model.closed_form:  # type: ignore[attr-defined]
        return {}
    specs = settings.fields(model)
    return {
        name: spec.metadata["picks"]
        for name, spec in specs.items()
        if spec.metadata["picks"] and config.values[name] is None
    }


def search(picks: Mapping[str, tuple[float, ...]], cost: Callable[[Picked], float]) -> Picked:
    """Returns the settings of the least cost, by one climb along each setting's values in turn.

    Args:
        picks: Of each setting the values, in order of size but for the first, where it starts.
        cost: Of settings, such as the validation RMSE.
    """
    best = {name: values[0] for name, values in picks.items()}
    least = cost(best)
    for name, values in picks.items():
        start, places = values[0], sorted(values)
        for way in (1, -1):
            at = places.index(start) + way
            while 0 <= at < len(places):
                found = cost(best | {name: places[at]})
                if not found < least:  # or not a number
                    break
                least, best, at = found, best | {name: places[at]}, at + way
            if best[name] != start:
                break
    return best
