"""What the pipeline asks of a source. Ports are defined by their user: keep this small."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from importer.api.failure import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFacts:
    """What the first answer of a source told. All of it may be printed: nothing secret in here."""

    url: str
    """Redacted: no user information, no query values."""
    name: str
    """Last part of the path, decoded: what a SHA256SUMS file would call it."""
    length: int | None
    """Bytes, None if unknown."""
    ranges: bool
    """True if any span can be asked for at any time."""
    validators: Mapping[str, str] = field(default_factory=dict)
    """Such as etag, last-modified, inode: what tells that the object is still the same."""
    content_type: str = ""
    latency: float | None = None
    """Seconds from a request to the head of its answer, at best so far; None if unknown."""
    once: bool = False
    """True if its bytes come once and at their own pace: to try again is no use, and silence no fault."""
    served_length: int | None = None
    """Bytes that are fetched to bring the object, where that is not its length: a layer, for the disk in it."""
    notes: tuple[str, ...] = ()
    """Sentences worth telling: "the proxied hop's address was not checked"."""


class Interrupted(Exception):
    """One attempt to fetch broke off; the bytes already yielded are good and another attempt may do better.

    `reason` is a short text for receipts and errors; `crowded` says the server wants fewer connections;
    `retry_after` are seconds it asked for.
    """

    def __init__(self, reason: str, *, crowded: bool = False, retry_after: float | None = None) -> None:
        """Say why it broke off."""
        super().__init__(reason)
        self.reason = reason
        self.crowded = crowded
        self.retry_after = retry_after


class RangesEnded(Interrupted):
    """The server stopped serving ranges: asking for more of them is pointless, but `fetch(0, None)` reads the whole."""

    def failure(self) -> Failure:
        """Return what to report where the whole does not help."""
        return Failure(
            "protocol",
            "the server stopped serving ranges, which reading this image needs",
            hint="try another mirror, or download the image and import the file",
            last_reason=self.reason,
        )


class Basin(Protocol):
    """Memory that a source pours into. All calls are made on the event loop."""

    def place(self, at: int, /) -> memoryview:
        """Return where the bytes from `at` on go: writable, at least one byte, perhaps more than is wanted.

        What it lies in may be given away as soon as an attempt ends: fill it at once, or let nothing end the attempt meanwhile.
        """
        ...

    def filled(self, at: int, count: int, /) -> None:
        """Take note that the `count` bytes from `at` on lie in their place. Raises Failure, which ends the attempt."""
        ...


def fill(basin: Basin, at: int, data: bytes | memoryview) -> None:
    """Copy bytes that came as an object of their own into a basin. Raises what the basin raises."""
    rest = memoryview(data)
    while rest:
        place = basin.place(at)
        step = min(len(place), len(rest))
        place[:step] = rest[:step]
        basin.filled(at, step)
        rest = rest[step:]
        at += step


class Source(Protocol):
    """One object, opened and probed. Every attempt serves bytes of the same version of it or fails."""

    @property
    def facts(self) -> SourceFacts:
        """What is known of the object."""
        ...

    @property
    def head(self) -> bytes:
        """The first bytes, as the probe got them: at least 64 KiB where the object has as much."""
        ...

    def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end, in one attempt; `end` None reads on to the end of the object.

        A source without ranges is only ever asked for (0, None). Ends without an error only if every byte was
        yielded. Raises Interrupted (try again) or Failure (do not).
        """
        ...

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring the bytes start..end, in one attempt, straight into a basin; for sources with ranges.

        Like `fetch`: returns only if every byte is there, raises Interrupted or Failure; what was filled before is good.
        """
        ...

    async def settle(self) -> None:
        """Check once more, after the last byte, that the object did not change. Raises Failure("source-changed")."""
        ...

    async def close(self) -> None:
        """Let go of connections and descriptors."""
        ...
