"""The entry points of the commands; ``python -m h2a_batch`` runs the first one."""

import signal
import sys


def main() -> int:
    """Run the command line. Ctrl-C while the libraries load ends in silence, without a traceback."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from h2a_batch.command.convert import main as run

    signal.signal(signal.SIGINT, before)
    return run()


def sheet() -> int:
    """Run ``h2a-sheet`` in the same way."""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from h2a_batch.command.sheet import main as run

    signal.signal(signal.SIGINT, before)
    return run()


if __name__ == "__main__":
    sys.exit(main())
