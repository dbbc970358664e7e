"""The scheme table: which source reads which kind of URL. Adding a scheme is one opener and one row."""

import re
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import unquote

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.local import LocalSource
from importer.sources.origin import has_userinfo, redact
from importer.sources.protocol import Source


async def _open_http(url: str, access: Access) -> Source:
    from machinery.service import tls  # here and not above: asyncio and ssl are not needed to parse a command line

    with tls.without_authorities():  # aiohttp makes contexts of its own, which no request of ours uses
        from importer.sources.http import HttpSource  # 0.1 s, which a local file need not pay

    return await HttpSource.open(url, access)


async def _open_s3(url: str, access: Access) -> Source:
    from importer.sources.s3 import S3Source

    return await S3Source.open(url, access)


async def _open_file_url(url: str, access: Access) -> Source:
    host, slash, path = url.split(":", 1)[1].removeprefix("//").partition("/")
    if not slash or host not in ("", "localhost"):
        raise Failure("usage", "a file URL names a file of this machine: file:///absolute/path", url=redact(url))
    return await LocalSource.open(unquote("/" + path))


async def _open_blank(url: str, access: Access) -> Source:
    from importer.sources.blank import BlankSource

    return BlankSource()


async def _open_stdin(url: str, access: Access) -> Source:
    from importer.sources.stream import open_stdin

    return await open_stdin()


OPENERS: Mapping[str, Callable[[str, Access], Awaitable[Source]]] = {
    "http": _open_http,
    "https": _open_http,
    "s3": _open_s3,
    "file": _open_file_url,
    "blank": _open_blank,
    "-": _open_stdin,
}


IMAGES = ("docker", "oci-layout", "docker-archive")
"""Schemes of container images: a layer of one holds the disk. See sources.images."""


def names_image(source: str) -> bool:
    """True for what names a container image."""
    return source.partition(":")[0] in IMAGES


def scheme_of(source: str) -> str | None:
    """Return the scheme of a source in lower case, "-" for standard input, None if it is a bare path."""
    if source == "-":
        return source
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://|(file):/|(blank):$", source)
    return (found[1] or found[2] or found[3]).lower() if found else None


async def open_source(url: str, access: Access) -> Source:
    """Open and probe a source: a URL, a path, "-" for standard input or "blank:" for nothing.

    Raises Failure: "secret-in-argv" for user information in a URL, "usage" for an unknown scheme,
    and whatever the source itself finds wrong.
    """
    scheme = scheme_of(url)
    if scheme is None:
        return await LocalSource.open(url)
    if has_userinfo(url):
        raise Failure("secret-in-argv", "the URL carries user information", url=redact(url))
    opener = OPENERS.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}:" for name in (*OPENERS, *IMAGES) if name != "-")
        raise Failure("usage", f"sources of the scheme {scheme} are not known", known=f"{known} and paths", url=redact(url))
    return await opener(url, access)
