"""Recommends from a finished run's export.

python scripts/recommend.py --workdir=runs/... --user=42 --k=10
python scripts/recommend.py --workdir=runs/... --like="Toy Story (1995); Heat (1995)"
python scripts/recommend.py --workdir=runs/... --about="gender=F; age=25-34"
python scripts/recommend.py --workdir=runs/... --all --output=recs.parquet
"""

from pathlib import Path

from absl import flags

from tfrec import cli as command
from tfrec.errors import UsageError
from tfrec.system import quiet
from tfrec.system.text import said

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a finished run")
USER = flags.DEFINE_string(
    "user", None, "recommend to this user (a raw id), beside the truth that was held out"
)
LIKE = flags.DEFINE_string(
    "like",
    None,
    "recommend to somebody who likes these products: titles or raw ids, with ; between them",
)
ABOUT = flags.DEFINE_string(
    "about",
    None,
    "recommend to somebody of whom these attributes are known: NAME=VALUE, with ; between them",
)
ALL = flags.DEFINE_bool("all", False, "recommend to every user, into --output")
OUTPUT = flags.DEFINE_string("output", None, "Parquet or CSV file of --all")
K = flags.DEFINE_integer("k", 10, "how many products", lower_bound=1)


def main() -> None:
    if not WORKDIR.value:
        raise UsageError("--workdir=FOLDER of a finished run is needed.")
    if sum(value is not None for value in (USER.value, LIKE.value, ABOUT.value)) + ALL.value != 1:
        raise UsageError(
            'say for whom: one of --user=ID, --like="TITLE; TITLE", --about="NAME=VALUE; '
            'NAME=VALUE" and --all.'
        )
    if ALL.value != bool(OUTPUT.value):
        raise UsageError("--all and --output=FILE go together.")
    quiet.import_tensorflow()
    from tfrec.experiments.exported import ExportedModel

    served = ExportedModel(Path(WORKDIR.value))
    if ALL.value:
        print(f"{served.for_all(Path(OUTPUT.value), K.value):,} rows in {said(OUTPUT.value)}")
    elif LIKE.value is not None:
        print(served.for_likes(LIKE.value, K.value))
    elif ABOUT.value is not None:
        print(served.for_attributes(ABOUT.value, K.value))
    else:
        print(served.for_user(USER.value, K.value))


if __name__ == "__main__":
    command.run(main)
