"""Request headers from the command line and from files, and the refusal of secrets in argv.

Every user of a machine can read the arguments of every process, so whatever is secret comes
from a file. Nothing in here ever repeats a header's value in an error.
"""

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path

from importer.api.failure import Failure
from importer.sources.origin import has_userinfo, redact

SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_MOST_BYTES = 64 << 10
"""No header file is longer; a longer one is some other file given by mistake."""

Header = tuple[str, str]


def refuse_userinfo(option: str, url: str) -> None:
    """Raise Failure("secret-in-argv") if a URL of the command line carries a user name or password."""
    full = f"http://{url}" if option == "--proxy" and "://" not in url else url
    if has_userinfo(full):
        hint = "leave --proxy out and set https_proxy in the environment" if option == "--proxy" else None
        raise Failure("secret-in-argv", f"{option} carries user information", url=redact(full), hint=hint)


def read_text(option: str, path: str) -> str:
    """Return a small text file named by an option. Raises Failure("usage" | "permission")."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except PermissionError:
        raise Failure("permission", f"the file of {option} cannot be read", file=path) from None
    except OSError as error:
        raise Failure("usage", f"the file of {option} cannot be read", file=path, problem=error.strerror) from None
    except ValueError:
        raise Failure("usage", f"the file name of {option} cannot be one") from None
    if len(data) > _MOST_BYTES:
        raise Failure("usage", f"the file of {option} is too long to be one", file=path, limit=f"{_MOST_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Failure("usage", f"the file of {option} is not UTF-8 text", file=path) from None


def read_source(source: str) -> str:
    """Return SOURCE itself, or the URL in the file that `@FILE` names: its one line that is neither empty nor a comment."""
    if not source.startswith("@"):
        refuse_userinfo("SOURCE", source)
        return source
    path = source[1:]
    lines = list(_meaningful(read_text("SOURCE", path)))
    if len(lines) != 1:
        raise Failure("usage", "a file given as @FILE holds exactly one URL", file=path, lines=len(lines))
    if has_userinfo(lines[0]):
        raise Failure("usage", "the URL carries user information", file=path, hint="put user:password in a file for --auth-file")
    return lines[0]


def is_container_file(path: str) -> bool:
    """Tell whether a file of --auth-file is JSON, as docker and podman write it. Raises Failure("usage" | "permission")."""
    return read_text("--auth-file", path).lstrip().startswith("{")


def request_headers(*, plain: Sequence[str], header_file: str | None, auth_file: str | None) -> tuple[Header, ...]:
    """Return the headers of --header, --header-file and --auth-file, in this order.

    Raises Failure: "secret-in-argv" for a --header that belongs into a file, "usage" for lines that
    are no header and for a name given twice.
    """
    headers = [_split("--header", line) for line in plain]
    for name, _ in headers:
        if name.lower() in SECRET_HEADERS:
            raise Failure("secret-in-argv", f"--header {name} would be readable by every user", header=name)
    if header_file is not None:
        headers += [_split("--header-file", line) for line in _meaningful(read_text("--header-file", header_file))]
    if auth_file is not None:
        headers.append(("Authorization", _authorization(auth_file)))
    names = [name.lower() for name, _ in headers]
    for name, _ in headers:
        if names.count(name.lower()) > 1:
            raise Failure(
                "usage", f"the header {name} is given twice", hint="give it once, by --header, --header-file or --auth-file"
            )
    return tuple(headers)


def _meaningful(text: str) -> Iterator[str]:
    lines = (line.strip() for line in text.splitlines())
    return (line for line in lines if line and not line.startswith("#"))


def _split(option: str, line: str) -> Header:
    name, colon, value = line.partition(":")
    if not colon or not name.strip():
        raise Failure("usage", f"{option} takes NAME:VALUE", hint="write it as in: X-Project: images")
    return name.strip(), value.strip()


def _authorization(path: str) -> str:
    """Return the header for a file whose first line is `user:password` or `Bearer TOKEN`."""
    first = next(iter(read_text("--auth-file", path).splitlines()), "").strip()
    scheme, _, token = first.partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return f"Bearer {token.strip()}"
    if ":" in first:
        return "Basic " + base64.b64encode(first.encode()).decode("ascii")
    raise Failure(
        "usage",
        "the first line of --auth-file is neither user:password nor Bearer TOKEN",
        file=path,
    )
