"""URLs as this importer sees them: origins, redirects, and what of a URL may be shown. Pure."""

import re
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit, urlunsplit

from importer.api.failure import Failure
from importer.sources.addresses import literal

MAX_REDIRECTS = 5
PORTS = {"http": 80, "https": 443}
HIDDEN = "***"

# Every printable ASCII character stays as it was written: a signature in a query covers the exact spelling.
_KEEP = "".join(chr(code) for code in range(0x21, 0x7F))

_PINNED = re.compile(r"docker://[^/@]+@sha(256|512):[0-9a-f]+")
"""An image of Docker Hub by its digest, which is no password."""


class Origin(NamedTuple):
    """Whom a request is sent to: secrets given for one origin are never sent to another."""

    scheme: str
    host: str
    port: int


def has_userinfo(url: str) -> bool:
    """Tell whether the URL carries a user name or password."""
    return "@" in _authority(url) and not _PINNED.fullmatch(url.strip())


def _authority(url: str) -> str:
    found = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#\\]*)", url.strip())
    return found[1] if found else ""


def normalise(url: str) -> str:
    """Return the one spelling of an http(s) URL that is sent: no fragment, ASCII, plain host, explicit path.

    Raises ValueError, whose text names the trouble without showing the URL.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        raise ValueError("it is not a URL") from None
    if parts.scheme not in PORTS:
        raise ValueError(f"{parts.scheme or 'no scheme'} is not http or https")
    if "@" in parts.netloc:
        raise ValueError("it carries user information")
    host = _plain_host(parts.hostname or "")
    netloc = host if port in (None, PORTS[parts.scheme]) else f"{host}:{port}"
    path = quote(parts.path, safe=_KEEP) or "/"
    return urlunsplit(SplitResult(parts.scheme, netloc, path, quote(parts.query, safe=_KEEP), ""))


def _plain_host(host: str) -> str:
    address = literal(host)
    if address is not None:
        return f"[{address}]" if address.version == 6 else str(address)
    try:
        plain = host.encode("idna").decode() if not host.isascii() else host
    except UnicodeError:
        raise ValueError("it names a host that is none") from None
    if not re.fullmatch(r"[A-Za-z0-9._-]+", plain):
        raise ValueError("it names a host that is none" if plain else "it names no host")
    return plain.lower()


def origin(url: str) -> Origin:
    """Return the origin of a normalised URL."""
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or PORTS[parts.scheme])


def same_origin(one: str, other: str) -> bool:
    """Tell whether two sources as a person wrote them are http(s) URLs of one origin."""
    try:
        return origin(normalise(one)) == origin(normalise(other))
    except ValueError:
        return False


def next_hop(trail: tuple[str, ...], location: str | None) -> str:
    """Return where a redirect leads. `trail` are the URLs asked so far, the answering one last.

    Raises Failure("redirects") for more than MAX_REDIRECTS, loops, downgrades to http and targets that are no URL.
    """
    here = trail[-1]
    evidence = {"redirected_by": redact(here), "hops": str(len(trail))}
    if not location:
        raise Failure("redirects", "a redirect does not say where to", **evidence)
    try:
        target = normalise(urljoin(here, location))
    except ValueError as error:
        raise Failure("redirects", f"a redirect leads nowhere allowed: {error}", **evidence, to=redact(location)) from None
    evidence["to"] = redact(target)
    if target.startswith("http:") and here.startswith("https:"):
        raise Failure("redirects", "a redirect leads from https down to http", **evidence)
    if target in trail:
        raise Failure("redirects", "the redirects go in a circle", **evidence)
    if len(trail) > MAX_REDIRECTS:
        raise Failure("redirects", f"more than {MAX_REDIRECTS} redirects", **evidence)
    return target


def keeps_secrets(trail: tuple[str, ...]) -> bool:
    """Tell whether the last URL of the trail may be sent what the user meant for the first.

    Once left, the first origin is not trusted with them again either: another one chose the path.
    """
    return all(origin(url) == origin(trail[0]) for url in trail)


def redact(url: str) -> str:
    """Return the URL fit for logs: no user information, no query values, no fragment."""
    try:
        parts = urlsplit(url.strip())
        netloc = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not a URL)"
    query = "&".join(_hide(field) for field in parts.query.split("&")) if parts.query else ""
    text = urlunsplit(SplitResult(parts.scheme, netloc, parts.path, query, ""))
    return "".join(mark if mark.isprintable() else "?" for mark in text)


def _hide(field: str) -> str:
    name, equals, _ = field.partition("=")
    return f"{name}={HIDDEN}" if equals else HIDDEN


def secrets_in(url: str) -> tuple[str, ...]:
    """Return the query values of a URL, as written and decoded, that must not be repeated in an error."""
    values = (field.partition("=")[2] or field for field in urlsplit(url).query.split("&"))
    return tuple(text for value in values for text in {value, unquote(value)} if len(text) >= 4)


def object_name(url: str) -> str:
    """Return the last part of the path, decoded: what a SHA256SUMS file would call the object."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
