"""Exports the best checkpoint of a finished run anew.

python scripts/export.py --workdir=runs/...
"""

from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.system import outputs, quiet
from tfrec.system.text import said

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a finished run")
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "folder of the SavedModel, new, empty or an older export; none: export/ in the workdir",
)


def main() -> None:
    if not WORKDIR.value:
        raise UsageError("--workdir=FOLDER of a finished run is needed.")
    workdir = Path(WORKDIR.value)
    output = Path(OUTPUT.value or workdir / "export")
    outputs.check_export(output, "--output")
    quiet.import_tensorflow()
    from tfrec.experiments.run import Run

    Run.open(workdir).export(output)
    print(said(str(output)))


if __name__ == "__main__":
    command.run(main)
