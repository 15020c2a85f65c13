"""Command line: parses, shows progress, prints, exits. Everything it does is available from Python."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TextIO

from cyclopts import CycloptsError

from limbeck.cli.commands import make_app
from limbeck.distributed import context as processes
from limbeck.errors import LimbeckError, ProcessLost, RenamedWarning, without_long_words

__all__ = ["main", "make_app"]


def main() -> None:
    """Run the command line; limbeck's own errors become one message without a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("default", category=RenamedWarning)
    warnings.showwarning = _show_warning
    if processes.count() == 1:
        sys.exit(_run_command())
    from limbeck.engine.workers.worker import run_with_workers

    try:
        status = run_with_workers(_run_command)
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(2)  # do not wait for connections that are broken
    except KeyboardInterrupt:  # in a worker; process 0 reports it
        os._exit(130)
    sys.exit(status)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of our own as one line, any other as Python does."""
    if issubclass(category, RenamedWarning):
        print(f"note: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def _with_home(word: str) -> str:
    """Replace ``~`` in ``--option=~/folder``, as zsh does and bash does not."""
    option, equals, value = word.partition("=")
    tilde = option.startswith("--") and value.startswith("~")
    return f"{option}{equals}{os.path.expanduser(value)}" if tilde else word


def _run_command() -> int:
    """Run the command and return its exit status."""
    try:
        words = [_with_home(word) for word in sys.argv[1:]]
        status = make_app(words)(words, exit_on_error=False)
    except SystemExit as exit:
        status = exit.code
    except CycloptsError:  # already printed
        status = 2
    except ProcessLost:
        raise
    except LimbeckError as error:
        print(f"error: {without_long_words(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes where it stopped", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        status = 141
    except OSError as error:
        print(f"error: {without_long_words(str(error))}", file=sys.stderr)
        status = 2
    return status if isinstance(status, int) else 0
