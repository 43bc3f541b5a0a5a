"""A Markdown table of finished runs, for README: python scripts/results.py --runs="runs/r1-*" --metrics=rmse,mae

Runs that differ in --seed alone are one line: mean ± spread (sample standard deviation). Each line's command makes its figures again.
"""

import glob
from pathlib import Path

from absl import flags

from tfrec import command, report
from tfrec.errors import UsageError

RUNS = flags.DEFINE_string("runs", "runs/*", "folders of finished runs; * stands for anything")
METRICS = flags.DEFINE_list("metrics", ["rmse", "mae"], "test metrics, by their names in metrics.json")


def main() -> None:
    folders = sorted(Path(folder) for folder in glob.glob(RUNS.value) if Path(folder).is_dir())
    if not folders:
        raise UsageError(f"--runs={RUNS.value}: there is no such folder.")
    print(report.of_runs(folders, METRICS.value))


if __name__ == "__main__":
    command.run(main)
