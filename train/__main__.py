"""`python -m train COMMAND`: each module in `train/commands/` is the command of its name."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

os.environ.setdefault("GLOG_v", "3")  # MindSpore's log, read at its import: errors only
os.environ["MS_COMPILER_CACHE_ENABLE"] = "0"  # a graph from MindSpore 2.8's cache computes NaN

from h2a_batch.errors import H2AError
from train import commands
from train.errors import TrainError

EXIT_UNUSABLE, EXIT_INTERRUPTED = 2, 130


def find_commands() -> dict[str, ModuleType]:
    """Command name to its module, which has SUMMARY, add_arguments(parser) and run(arguments)."""
    names = sorted(module.name for module in iter_modules(commands.__path__))
    return {name.replace("_", "-"): import_module(f"{commands.__name__}.{name}") for name in names}


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and export anime generators.")
    table = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in find_commands().items():
        entry = table.add_parser(name, help=module.SUMMARY, description=module.__doc__)
        module.add_arguments(entry)
        entry.set_defaults(run=module.run)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    try:
        options.run(options)
    except (TrainError, H2AError, OSError) as error:
        print(f"train {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
