"""The command line: parses, shows progress, prints, exits. Everything it does can be done from Python."""

from __future__ import annotations

import os
import sys
import warnings

from cyclopts import CycloptsError

from limbeck.cli import benchmark_commands, machine, model_commands, run_commands  # noqa: F401 they register commands
from limbeck.cli._app import app
from limbeck.cli.technique_commands import add_techniques
from limbeck.distributed import context as processes
from limbeck.errors import LimbeckError, ProcessLost

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: errors that limbeck raises on purpose are one clear message, not a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    if not {"--version"} & {*sys.argv[1:2]}:
        add_techniques()
    if processes.count() == 1:
        sys.exit(_command())
    from limbeck.engine.worker import run_with_workers

    try:
        status = run_with_workers(_command)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # the ends of broken connections are not worth waiting for
    except KeyboardInterrupt:  # in one that follows; process 0 tells of it
        os._exit(130)
    sys.exit(status)


def _command() -> int:
    """Carry out the command line; its exit status."""
    try:
        status = app(sys.argv[1:], exit_on_error=False)
    except SystemExit as ended:
        status = ended.code
    except CycloptsError:  # told already
        status = 2
    except ProcessLost:
        raise
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from where it stopped", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 141
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    return status if isinstance(status, int) else 0
