"""A Markdown table of finished runs, for README: python scripts/results.py --metrics=rmse,mae
runs/r1-*

Runs that differ in --seed alone are one line: mean ± spread (sample standard deviation). Each
line's command makes its figures again. With --peers the runs stand by protocol beside the best that
is known of other libraries (experiments/protocols.py), folds as their mean.
"""

import glob
from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.experiments import protocols, report

RUNS = flags.DEFINE_string(
    "runs",
    "runs/*",
    "folders of finished runs, where none stand on the command line; * stands for anything",
)
METRICS = flags.DEFINE_list(
    "metrics", ["rmse", "mae"], "test metrics, by their names in metrics.json"
)
PEERS = flags.DEFINE_bool("peers", False, "the runs of published protocols, beside other libraries")


def main(words: list[str]) -> None:
    folders = [Path(word) for word in words] or sorted(
        Path(folder) for folder in glob.glob(RUNS.value) if Path(folder).is_dir()
    )
    if not folders:
        raise UsageError(f"--runs={RUNS.value}: there is no such folder.")
    print(protocols.table(folders) if PEERS.value else report.of_runs(folders, METRICS.value))


if __name__ == "__main__":
    command.run_with_words(main)
