"""What every script shares: flags in, one call, and errors that end in one line."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from tfrec.errors import Preempted, TfrecError, UsageError, nearest, reason
from tfrec.experiments import flags as settings
from tfrec.experiments.config import Config, make_config
from tfrec.system import quiet, stopping
from tfrec.system.text import said

COMMANDS = (
    "train",
    "evaluate",
    "recommend",
    "export",
    "tune",
    "compare",
    "results",
    "prepare",
    "launch",
)
HELP = {"-h", "-help", "--help"}
_program = "python scripts/{}.py"


def main() -> None:
    """The command `tfrec`: the scripts under one name."""
    global _program
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(f"tfrec COMMAND --help\n\nCommands: {', '.join(COMMANDS)}")
        sys.exit(0)
    if name not in COMMANDS:
        print(
            f"tfrec: {said(name)}: expected one of {', '.join(COMMANDS)}.{nearest(name, COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    _program = "tfrec {}"
    del sys.argv[1]
    here = Path(__file__).parent
    installed = here / "commands"  # in a checkout they stand in scripts
    folder = installed if installed.is_dir() else here.parent / "scripts"
    runpy.run_path(str(folder / f"{name}.py"), run_name="__main__")


def program(name: str) -> str:
    """Returns how a script is called: `python scripts/NAME.py`, or `tfrec NAME`."""
    return _program.format(name)


def train_settings(main: Callable[[Config], None]) -> None:
    """Runs main with the Config of the command line's flags, one for each setting."""
    args = sys.argv[1:]
    if not HELP & set(args):
        try:
            settings.check_files(args)
        except TfrecError as error:
            fail(str(error), error.exit_code)
    with_settings(lambda given: main(make_config(**given)))


def with_settings(main: Callable[[dict[str, Any]], None]) -> None:
    """Runs main with the settings that the command line gives, by name."""
    args = sys.argv[1:]
    if HELP & set(args):
        _show_help(lambda: _help(args))
    fields = define(args)
    run(lambda: main(settings.explicit_flags(flags.FLAGS, fields)))


def define(args: list[str]) -> settings.Fields:
    """Defines a flag for each setting; a part that cannot be imported ends the script."""
    try:
        quiet.import_tensorflow()
        return settings.define_flags(args)
    except TfrecError as error:
        fail(str(error), error.exit_code)
        raise


def _help(args: list[str]) -> str:
    own = flags.FLAGS.main_module_help()
    return f"{own}\n{settings.help_text(args)}" if "--" in own else settings.help_text(args)


def run(
    main: Callable[[], None], help: Callable[[], str] = lambda: flags.FLAGS.main_module_help()
) -> None:
    """Parses the flags, calls main and exits.

    0, 1 (a failure), 2 (wrong usage), 75 (told to stop: run me again) or 130 (Ctrl-C).
    """
    run_with_args(lambda args: _no_args(args, main), help)


def run_with_args(
    main: Callable[[list[str]], None],
    help: Callable[[], str] = lambda: flags.FLAGS.main_module_help(),
) -> None:
    """As run; main is given what stands on the command line beside the flags."""
    logging.set_verbosity(
        logging.ERROR
    )  # TensorFlow logs through absl, and what a script has to say it prints
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _parse(argv, help))


def _parse(argv: list[str], help: Callable[[], str]) -> list[str]:
    if HELP & set(argv[1:]):
        _show_help(help)
    try:
        return settings.parsed(flags.FLAGS, argv)
    except UsageError as error:
        fail(str(error), 2)
        raise


def _show_help(help: Callable[[], str]) -> None:
    try:
        print(sys.modules["__main__"].__doc__ or "", help(), sep="\n")
    except UsageError as error:
        fail(str(error), 2)
    sys.exit(0)


def _no_args(args: list[str], main: Callable[[], None]) -> None:
    if args:
        raise UsageError(f"{args[0]}: unexpected; settings are given as --NAME=VALUE.")
    main()


def _guarded(main: Callable[[list[str]], None], argv: list[str]) -> None:
    try:
        with stopping.immediate():
            main(argv[1:])
    except (Preempted, stopping.Terminated) as error:
        told = str(error) or "told to stop (SIGTERM)"
        print(
            f"{os.path.basename(sys.argv[0])}: {said(told)}. Run the same command again.",
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(
            Preempted.exit_code
        )  # at a proper end TensorFlow would wait for processes that are lost
    except TfrecError as error:
        fail(str(error), error.exit_code)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        why = reason(error)
        if why is None:
            raise
        path = getattr(error, "filename", None)
        mend = (
            " Take a smaller --batch_size or model, or a machine with more."
            if why.startswith("not enough memory")
            else ""
        )
        fail(f"{path}: {why}.{mend}" if path else f"{why}.{mend}", 1)
    except KeyboardInterrupt as error:
        fail(
            str(error)
            or "interrupted; the same command with the --workdir named above goes on from the "
            "last checkpoint.",
            130,
        )


def fail(message: str, code: int) -> None:
    """Says one line and exits."""
    print(f"{os.path.basename(sys.argv[0])}: {said(message)}", file=sys.stderr)
    sys.exit(code)
