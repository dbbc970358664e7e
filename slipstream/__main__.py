"""The door: finds the house that a command belongs to, and turns errors of the command line into exit status 64."""

import argparse
import atexit
import gc
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

from importer import cli
from importer.api.failure import Failure
from importer.api.version import VERSION


class _Version(argparse.Action):
    """Print the version to a reader that may not stay, and leave."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        python = ".".join(map(str, sys.version_info[:3]))
        cli.Out(sys.stdout).line(f"slipstream {VERSION} (Python {python})")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    top = cli.Parser(prog="slipstream", description="Disk images stream in.", epilog="`slipstream COMMAND --help` says more.")
    top.add_argument("--version", action=_Version, nargs=0, help="print the version and leave")
    cli.add_commands(top.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status; --help and --version leave with 0 by SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    atexit.register(gc.freeze)  # else the interpreter looks for garbage in every module as it ends: 20 ms for nothing
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold any bytes, and a terminal may know only ASCII: neither is a reason to fail.
            stream.reconfigure(errors="backslashreplace")
    try:
        chosen = parser().parse_args(cli.spelled_out(words))
    except Failure as failure:
        return cli.refuse(failure, json_lines="--json" in words)
    status: int = chosen.front_door(chosen)
    return status


if __name__ == "__main__":
    sys.exit(main())
