"""Finished runs side by side: python scripts/compare.py runs/a-0 runs/a-1 runs/b-0 runs/b-1

Over the test rows that all of them have: the settings in which they differ, their metrics, and each
row's difference to the first by a paired bootstrap over users, with its 95 % interval and two-sided
p. Runs that differ in --seed alone are one row: mean ± spread (sample standard deviation).
"""

from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.system import quiet

METRICS = flags.DEFINE_list(
    "metrics", [], "test metrics, by their names in metrics.json; none: the usual ones"
)
RESAMPLES = flags.DEFINE_integer("resamples", 10_000, "draws of the bootstrap", lower_bound=100)
SEED = flags.DEFINE_integer("seed", 0, "seed of the draws", lower_bound=0)


def main(folders: list[str]) -> None:
    if len(folders) < 2:
        raise UsageError(
            "name the folders of two finished runs or more: python scripts/compare.py runs/a runs/b"
        )
    quiet.import_tensorflow()
    from tfrec.experiments import comparison

    print(
        comparison.compare(
            [Path(folder) for folder in folders], METRICS.value, RESAMPLES.value, SEED.value
        )
    )


if __name__ == "__main__":
    command.run_with_args(main)
