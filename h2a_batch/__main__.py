"""The entry points of the commands; ``python -m h2a_batch`` runs the first one."""

import signal
import sys
from collections.abc import Callable


def main() -> int:
    """Run the command line. Ctrl-C while the libraries load ends in silence, without a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from h2a_batch.command.convert import main as run

    signal.signal(signal.SIGINT, before)
    return _run(run, "h2a-batch")


def sheet() -> int:
    """Run ``h2a-sheet`` in the same way."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from h2a_batch.command.sheet import main as run

    signal.signal(signal.SIGINT, before)
    return _run(run, "h2a-sheet")


def _run(command: Callable[[], int], name: str) -> int:
    """Run a command, and return its exit code once all that it printed is written."""
    from h2a_batch.command.console import ended

    try:
        code = command()
    except SystemExit as ending:  # of a parser
        code = ending.code if isinstance(ending.code, int) else 0
    return ended(code, name)


if __name__ == "__main__":
    sys.exit(main())
