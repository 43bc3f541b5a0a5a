"""What every script shares: flags in, one call, and errors that end in one line."""

import os
import sys
from collections.abc import Callable

from absl import app, flags, logging

from tfrec import config
from tfrec.errors import TfrecError


def run(main: Callable[[config.Config], None]) -> None:
    """Parses the flags of all settings, calls main with the Config and exits: 0, 1 (a failure) or 2 (wrong usage)."""
    config.define_flags()
    logging.set_verbosity(logging.ERROR)  # TensorFlow logs through absl, and what a script has to say it prints
    app.run(lambda argv: _guarded(main, argv), flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    if {"-h", "-help", "--help"} & set(argv[1:]):
        print(sys.modules["__main__"].__doc__ or "", config.help(), sep="\n")
        sys.exit(0)
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(str(error), 2)
        raise


def _guarded(main: Callable[[config.Config], None], argv: list[str]) -> None:
    try:
        if len(argv) > 1:
            _fail(f"{argv[1]}: unexpected; settings are given as --NAME=VALUE.", 2)
        main(config.from_flags(flags.FLAGS))
    except TfrecError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted; the same command with the --workdir named above goes on from the last checkpoint.", 130)


def _fail(message: str, code: int) -> None:
    print(f"{os.path.basename(sys.argv[0])}: {message}", file=sys.stderr)
    sys.exit(code)
