"""The options of `slipstream import` and `slipstream inspect`, and the request they mean."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NoReturn, get_args

from importer import credentials, registry_options, s3_options
from importer.api.failure import Failure
from importer.api.request import Access, Algorithm, Checksum, Content, ImportRequest, Preallocate
from importer.disk.image import Format
from importer.terminal import Out
from machinery.values.quantity import parse_size

ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
_HEX_DIGITS = {"sha256": 64, "sha512": 128, "sha1": 40, "md5": 32}
MOST_CONNECTIONS = 32

_DESCRIPTION = "Stream a disk image into a raw disk. It is judged first and decoded while it downloads."
_SOURCE = "an http(s), s3, docker or file URL, a path, -, blank:, or @FILE that holds the URL"
_EPILOG = "Sizes: 10Gi. Exit: 64 usage, 65 image, 69 source, 70 fault, 73 target, 74 I/O, 75 retry, 77 denied."


class Help(argparse.HelpFormatter):
    """Help that fits one screen: 100 columns, an option a line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=100)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are Failures, so that every program ends in the same form, and repeat no secret."""

    def __init__(self, *args: object, **settings: object) -> None:
        settings = {"formatter_class": Help, "allow_abbrev": False, **settings}
        super().__init__(*args, **settings)  # type: ignore[arg-type] # argparse's own many keywords, passed through

    def print_help(self, file: object = None) -> None:
        """Print the help, whether or not its reader stays to the end."""
        Out(sys.stdout).line(self.format_help().rstrip())

    def error(self, message: str) -> NoReturn:
        """Raise Failure("usage") instead of printing and leaving with 2."""
        text = re.sub(r"(://)[^/?#\s'\"]*@", r"\1***@", message)
        text = re.sub(r"\?[^\s'\"]+", "?***", text)
        raise Failure("usage", text, hint=f"see `{self.prog} --help`")


def spelled_out(argv: Sequence[str]) -> list[str]:
    """Return argv where a bare --digest or --preallocate says which, so that `--digest SOURCE TARGET` keeps its source."""
    given = list(argv)
    for place, word in enumerate(given):
        if word == "--":
            break
        following = given[place + 1] if place + 1 < len(given) else ""
        if word == "--digest" and following not in ALGORITHMS:
            given[place] = "--digest=sha256"
        if word == "--preallocate" and following not in get_args(Preallocate):
            given[place] = "--preallocate=falloc"
    return given


def add_import(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `import`."""
    parser.usage = f"{parser.prog} SOURCE TARGET [options]"
    parser.description, parser.epilog = _DESCRIPTION, _EPILOG
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser.add_argument("target", metavar="TARGET", help="the raw file to be, a directory (disk.img in it), or a block device")
    image = _add_image(parser)
    contents = get_args(Content)
    image.add_argument("--content", metavar="WHAT", choices=contents, default="disk", help="archive: extract a tar (disk)")
    image.add_argument("--decoder-memory", metavar="SIZE", type=_size, default=256 << 20, help="most a decoder may take (256Mi)")
    checks = parser.add_argument_group("verification")
    checks.add_argument("--checksum", metavar="ALGO:HEX", type=_checksum, help="refuse other bytes; sha256, sha512, sha1 or md5")
    checks.add_argument("--checksum-url", metavar="URL", help="a SHA256SUMS-style file that names the image")
    checks.add_argument("--digest", metavar="ALGO", nargs="?", const="sha256", choices=ALGORITHMS, help="compute one (sha256)")
    _add_access(parser)
    target = _add_target(parser)
    target.add_argument("--scratch-dir", metavar="DIR", help="where an announced spill goes (beside the target)")
    target.add_argument("--force", action="store_true", help="replace an existing target, or what is on a device")
    target.add_argument("--restart", action="store_true", help="begin anew, whatever an interrupted import left")
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="JSON lines on standard output: progress, receipt, failure")
    output.add_argument("--receipt", metavar="FILE", help="write the receipt as JSON, - for standard output")
    output.add_argument("--quiet", action="store_true", help="show no progress and no receipt")
    output.add_argument("-h", "--help", action="help", help="show this page")  # not in a group of its own: that costs lines


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Give a parser the arguments of `inspect`."""
    parser.usage = f"{parser.prog} SOURCE [--for TARGET] [--json] [options]"
    parser.description = "Say what an image is, what its server can do, and why an import would be refused."
    parser.epilog = "Exit: 0 if nothing stands against an import, else as the import would end."
    parser.add_argument("source", metavar="SOURCE", help=_SOURCE)
    parser.add_argument("--for", dest="target", metavar="TARGET", help="say whether it fits there")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    _add_image(parser)
    _add_access(parser)
    _add_target(parser)


def _add_image(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("image")
    group.add_argument(
        "--format", metavar="NAME", choices=[str(one) for one in Format], help=f"do not recognise it: {_formats()}"
    )
    group.add_argument("--size", metavar="SIZE", type=_disk_size, help="grow the disk to this size")
    group.add_argument("--max-size", metavar="SIZE", type=_disk_size, default=1 << 40, help="refuse a larger disk (1Ti)")
    return group


def _add_access(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("source")
    group.add_argument("--connections", metavar="N", type=_connections, default=8, help="most at a time, if they bring more (8)")
    group.add_argument("--ca-file", metavar="FILE", help="trust the certificate authorities in this PEM file")
    group.add_argument("--insecure", action="store_true", help="do not verify the server's certificate")
    group.add_argument("--header", metavar="NAME:VALUE", action="append", default=[], help="send a header that is no secret")
    group.add_argument("--header-file", metavar="FILE", help="send the headers of a file, one NAME: VALUE a line")
    group.add_argument("--auth-file", metavar="FILE", help="first line: user:password, or Bearer TOKEN; or a docker config.json")
    group.add_argument("--proxy", metavar="URL", help="instead of http_proxy, https_proxy and no_proxy")
    group.add_argument("--allow-address", metavar="CIDR", action="append", default=[], help="a network to reach though refused")
    s3_options.add(group)
    registry_options.add(group)


def _add_target(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("target")
    ways = get_args(Preallocate)
    group.add_argument(
        "--preallocate", metavar="HOW", nargs="?", const="falloc", choices=ways, help="the whole disk's space: falloc, full"
    )
    group.add_argument("--reserve", metavar="SIZE", type=_size, help="space to leave free (1Gi or 5 %%, whichever is less)")
    return group


def _formats() -> str:
    return ", ".join(Format)


def _typed(convert: Callable[[str], int]) -> Callable[[str], int]:
    """Turn ValueError into argparse's own, which keeps the text."""

    def parse(text: str) -> int:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


_size = _typed(parse_size)


@_typed
def _disk_size(text: str) -> int:
    size = parse_size(text)
    if size == 0:
        raise ValueError("a disk is not empty")
    return size


@_typed
def _connections(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CONNECTIONS:
        raise ValueError(f"{text!r} is not a number from 1 to {MOST_CONNECTIONS}")
    return int(text)


def _checksum(text: str) -> Checksum:
    algorithm, _, digits = text.strip().partition(":")
    algorithm, digits = algorithm.lower(), digits.strip().lower()
    if algorithm not in _HEX_DIGITS:
        raise argparse.ArgumentTypeError(f"write ALGO:HEX with one of {', '.join(ALGORITHMS)}")
    if not re.fullmatch(f"[0-9a-f]{{{_HEX_DIGITS[algorithm]}}}", digits):
        raise argparse.ArgumentTypeError(f"{algorithm} has {_HEX_DIGITS[algorithm]} hexadecimal digits")
    return Checksum(algorithm=algorithm, hex=digits)


def request_of(chosen: argparse.Namespace) -> ImportRequest:
    """Return the request that parsed arguments of `import` or `inspect` mean. Reads the files they name. Raises Failure."""
    if not chosen.source or chosen.target == "":
        raise Failure("usage", "SOURCE and TARGET must not be empty")
    if chosen.insecure and chosen.ca_file:
        raise Failure("usage", "--insecure would ignore --ca-file", hint="leave one of them out")
    if chosen.proxy:
        credentials.refuse_userinfo("--proxy", chosen.proxy)
    source, s3 = s3_options.located(chosen, credentials.read_source(chosen.source))
    auth_file, registry = registry_options.located(chosen, source)
    access = Access(
        headers=credentials.request_headers(plain=chosen.header, header_file=chosen.header_file, auth_file=auth_file),
        ca_file=chosen.ca_file,
        insecure=chosen.insecure,
        proxy=chosen.proxy,
        allow_addresses=tuple(chosen.allow_address),
        connections=chosen.connections,
        s3=s3,
        registry=registry,
    )
    request = ImportRequest(
        source=source,
        target=chosen.target or "",
        format=chosen.format,
        size=chosen.size,
        max_size=chosen.max_size,
        access=access,
        preallocate=chosen.preallocate,
        reserve=chosen.reserve,
    )
    return _with_import_options(request, chosen) if chosen.command == "import" else request


def _with_import_options(request: ImportRequest, chosen: argparse.Namespace) -> ImportRequest:
    if chosen.checksum_url:
        credentials.refuse_userinfo("--checksum-url", chosen.checksum_url)
    if chosen.json and chosen.receipt == "-":
        raise Failure("usage", "--json and --receipt - both write to standard output", hint="--json prints the receipt already")
    _refuse_disk_options(chosen)
    return replace(
        request,
        content=chosen.content,
        checksum=chosen.checksum,
        checksum_url=chosen.checksum_url,
        digest=chosen.digest,
        decoder_memory=chosen.decoder_memory,
        scratch_dir=chosen.scratch_dir,
        force=chosen.force,
        restart=chosen.restart,
    )


def _refuse_disk_options(chosen: argparse.Namespace) -> None:
    """Raise Failure("usage") for options that say nothing of an archive."""
    given = [name for name in ("format", "size", "preallocate", "scratch_dir", "force") if getattr(chosen, name)]
    if chosen.content == "archive" and given:
        option = "--" + given[0].replace("_", "-")
        raise Failure("usage", f"{option} is for disks, not for archives", hint=f"leave {option} or --content archive out")
