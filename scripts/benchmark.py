"""Measures tfrec's speed beside Keras and other libraries, on made-up data: python
scripts/benchmark.py --json=results.json

Only ratios of figures that were taken in one run, on a machine that does nothing else, say
something. Suites: train, pipeline, vocabulary, evaluate, serve; and libmf (mf beside LIBMF, which
must be installed), strategy (mirrored on one device), scale (from disk beside memory, large tables
on two devices) and features (of many values). Peers go into an environment of their own:

    python3 -m venv /tmp/peers /tmp/peers/bin/pip install -c constraints.txt . torch implicit libmf
    scikit-surprise /tmp/peers/bin/python scripts/benchmark.py --peers=torch,libmf,surprise,implicit
    --suite=train,libmf --json=results.json
"""

from pathlib import Path

from absl import flags
from benchmarks import main
from benchmarks.suites import SUITES, Settings

from tfrec import cli as command
from tfrec.errors import UsageError

DEFAULTS = Settings()
SUITE = flags.DEFINE_list(
    "suite",
    ["train", "pipeline", "vocabulary", "evaluate", "serve"],
    f"some of {', '.join(SUITES)}",
)
JSON = flags.DEFINE_string("json", None, "file for the rows; it grows with each suite")
PEERS = flags.DEFINE_list(
    "peers", [], "libraries to measure beside: torch, libmf, surprise, implicit"
)
MODELS = flags.DEFINE_list("models", list(DEFAULTS.models), "models to measure")
BATCH_SIZES = flags.DEFINE_list(
    "batch_sizes", list(map(str, DEFAULTS.batch_sizes)), "train, pipeline: rows of a batch"
)
VOCABULARY = flags.DEFINE_list(
    "vocabulary", list(map(str, DEFAULTS.vocabulary)), "vocabulary: rows of a table"
)
ROWS = flags.DEFINE_integer(
    "rows", DEFAULTS.rows, "rows of the data; fewer make everything shorter", lower_bound=10
)
ROUNDS = flags.DEFINE_integer(
    "rounds", 1, "train: measure each side so often, in turn, and take the best", lower_bound=1
)


def numbers(name: str, values: list[str]) -> tuple[int, ...]:
    try:
        return tuple(int(value) for value in values)
    except ValueError:
        raise UsageError(
            f"--{name}={','.join(values)}: expected a comma-separated list of whole numbers."
        ) from None


def benchmark() -> None:
    sizes, vocabulary = (
        numbers("batch_sizes", BATCH_SIZES.value),
        numbers("vocabulary", VOCABULARY.value),
    )
    settings = Settings(
        ROWS.value, tuple(MODELS.value), sizes, vocabulary, tuple(PEERS.value), ROUNDS.value
    )
    main.benchmark(tuple(SUITE.value), settings, Path(JSON.value) if JSON.value else None)


if __name__ == "__main__":
    command.run(benchmark)
