"""All suites that were asked for: measured, printed and written."""

import json
from pathlib import Path

from tqdm import tqdm

from benchmarks import peers, report, suites
from benchmarks.process import measure_in
from benchmarks.suites import SUITES, Row, Settings
from tfrec.errors import UsageError, nearest
from tfrec.experiments.workdirs import write
from tfrec.system.outputs import check_file


def benchmark(names: tuple[str, ...], settings: Settings, output: Path | None) -> list[Row]:
    """Prints a table a suite; writes the rows of all into `output`, a JSON list, after each suite.

    Raises:
        UsageError: there is no such suite, model or peer, or it is not installed.
        TfrecError: the output cannot be written, or a measurement failed.
    """
    for name in names:
        if name not in SUITES:
            raise UsageError(
                f"--suite={name}: expected some of {', '.join(SUITES)}.{nearest(name, SUITES)}"
            )
    suites.check(settings)
    if "libmf" in names:
        peers.check(("libmf",))
    if output:
        check_file(output, f"--json={output}", _is_ours(output))
        write(output, "[]\n")  # before an hour of measuring, not after it
    print(report.machine())
    rows: list[Row] = []
    with tqdm(unit="measured", disable=None, dynamic_ncols=True, leave=False) as bar:
        for name in names:
            made = SUITES[name](settings, measure_in(bar))
            rows += made
            tqdm.write(f"\n{name}\n{report.table(made)}")
            if output:
                write(output, json.dumps(rows, indent=1) + "\n")
    return rows


def _is_ours(output: Path) -> bool:
    try:
        rows = json.loads(output.read_text())
        return isinstance(rows, list) and all("suite" in row for row in rows)
    except (OSError, ValueError, TypeError):
        return False
