"""What was promised about the bytes: --checksum, or a line of a SHA256SUMS-style file. Parsing is pure; fetching is not."""

import asyncio
import random
import re
from contextlib import aclosing
from dataclasses import replace

from importer.api.failure import Failure
from importer.api.request import Checksum, ImportRequest
from importer.pipeline.patience import Patience, Policy
from importer.sources import schemes
from importer.sources.origin import redact, same_origin
from importer.sources.protocol import Interrupted, Source

LENGTHS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}
LARGEST_FILE = 1 << 20
_GNU = re.compile(r"\\?([0-9A-Fa-f]{32,128}) [ *](.+)")
_BSD = re.compile(r"(MD5|SHA1|SHA256|SHA512) \((.+)\) = ([0-9A-Fa-f]{32,128})")


def find(text: str, name: str, url: str = "") -> Checksum:
    """Return the checksum that a SHA256SUMS-style text (GNU or BSD form) has for file `name`.

    Raises Failure("checksum-missing") when no line, or lines that contradict each other, name it.
    """
    found = {checksum for line in text.splitlines() if (checksum := _line(line.strip(), name))}
    strongest = max((len(checksum.hex) for checksum in found), default=0)
    best = [checksum for checksum in found if len(checksum.hex) == strongest]
    if len(best) != 1:
        cause = (
            "the checksum file names this image with different digests" if best else "the checksum file does not name this image"
        )
        raise Failure("checksum-missing", cause, file=url, name=name)
    return best[0]


def _line(line: str, name: str) -> Checksum | None:
    if match := _BSD.fullmatch(line):
        algorithm, path, digest = match[1].lower(), match[2], match[3]
    elif match := _GNU.fullmatch(line):
        digest, path = match[1], match[2]
        algorithm = {size: algorithm for algorithm, size in LENGTHS.items()}.get(len(digest), "")
    else:
        return None
    if path.removeprefix("./").rsplit("/", 1)[-1] != name or len(digest) != LENGTHS.get(algorithm):
        return None
    return Checksum(algorithm=algorithm, hex=digest.lower())


async def gather(request: ImportRequest, name: str, policy: Policy) -> tuple[tuple[Checksum, str], ...]:
    """Return every promise with where it comes from. Raises Failure."""
    promises = [(request.checksum, "--checksum")] if request.checksum else []
    if request.checksum_url:
        promises.append((find(await _text(request, policy), name, redact(request.checksum_url)), "--checksum-url"))
    return tuple(promises)


async def _text(request: ImportRequest, policy: Policy) -> str:
    assert request.checksum_url is not None
    access = request.access
    if not same_origin(request.source, request.checksum_url):
        access = replace(access, headers=())  # they were given for the image's server, and are for nobody else
    source = await schemes.open_source(request.checksum_url, access)
    try:
        return (await whole(source, policy)).decode("utf-8", "replace")
    finally:
        await source.close()


async def whole(source: Source, policy: Policy) -> bytes:
    """Return a small object whole, as patiently as an image is fetched.

    Raises Failure: "checksum-missing" for more than LARGEST_FILE bytes, "stalled" or "overloaded" once patience ends.
    """
    length = source.facts.length
    _refuse_large(source, length or 0)
    if length is not None and length == len(source.head):
        return source.head
    loop = asyncio.get_running_loop()
    patience = Patience(policy=policy, connections=1)
    data = bytearray(source.head if source.facts.ranges else b"")
    furthest = len(data)
    while True:
        began = loop.time()
        broke = await _attempt(source, data, policy)
        if broke is None:
            return bytes(data)
        patience.progressed(loop.time(), max(0, len(data) - furthest))  # what came before, and was lost, is no progress
        furthest = max(furthest, len(data))
        delay = patience.broke(
            loop.time(),
            began=began,
            crowded=broke.crowded,
            retry_after=broke.retry_after,
            chance=random.random(),  # noqa: S311
        )
        if patience.exhausted(loop.time() + delay):
            code = "overloaded" if broke.crowded else "stalled"
            raise Failure(code, "the server does not serve the checksum file", last_reason=broke.reason, file=source.facts.url)
        await asyncio.sleep(delay)


async def _attempt(source: Source, data: bytearray, policy: Policy) -> Interrupted | None:
    """Add to `data` what one attempt brings; return why it broke off, None once everything is there."""
    loop = asyncio.get_running_loop()
    if not source.facts.ranges:
        data.clear()
    gained = 0
    try:
        async with (
            asyncio.timeout(policy.stall_seconds) as watch,
            aclosing(source.fetch(len(data), None)) as chunks,  # type: ignore[type-var]
        ):
            async for chunk in chunks:
                data += chunk
                _refuse_large(source, len(data))
                gained += len(chunk)
                if gained >= policy.stall_bytes:
                    gained = 0
                    watch.reschedule(loop.time() + policy.stall_seconds)
    except TimeoutError:
        return Interrupted("stalled")
    except Interrupted as interrupted:
        return interrupted
    return None


def _refuse_large(source: Source, size: int) -> None:
    if size > LARGEST_FILE:
        raise Failure("checksum-missing", "the checksum file is too large to be one", file=source.facts.url, limit=LARGEST_FILE)
