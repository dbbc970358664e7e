"""Whether an import goes on where another stopped, and what is then left to do. Pure."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from importer.api.request import ImportRequest
from importer.disk.journal import Bond, Hashed, Mark, Past
from importer.pipeline.route import Way
from importer.sources.protocol import SourceFacts

IN_PIECES = frozenset({Way.COPY, Way.NATIVE})
"""Ways on which each piece of the object has its place on the disk."""
AGAIN = frozenset({Way.DECODE, Way.STREAM})
"""Ways that come again from the beginning, or from a mark: only what differs is written."""
RESUMABLE = IN_PIECES | AGAIN | {Way.BLOCKS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What earlier imports have done. The empty one begins anew."""

    done: bytes = b""
    """A byte for each piece (or block) of the object, 1 if its data is in the target; those beyond its end are not done."""
    hashed: Hashed | None = None
    """The digests to go on from; None: hash from the first byte."""
    mark: Mark | None = None
    """Where a compressed stream is begun; None: at its first byte."""
    amends: bool = False
    """True if the target holds much of what will come: only what differs is written."""
    note: str = ""
    """What a person should know of it, "" if nothing was there to go on from."""

    @property
    def begins_anew(self) -> bool:
        """True if nothing of what is there counts."""
        return not any(self.done) and not self.amends

    def missing(self, count: int) -> bytearray:
        """Return a byte for each of the object's `count` pieces: 1 for those that are not done."""
        done = self.done[:count]
        left = bytearray(b"\x01") * count
        left[: len(done)] = done.translate(_TURNED)
        return left


def bond(
    request: ImportRequest, facts: SourceFacts, head: bytes, *, image: Mapping[str, object], way: Way, target: str, piece: int
) -> Bond | None:
    """Return what a journal of this import belongs to, None if there is to be none.

    `image`: what of the image decides where its bytes land. Without a validator nothing proves that the object is the same.
    """
    if way not in RESUMABLE or not facts.validators:
        return None
    source = {
        "url": facts.url,
        "length": facts.length,
        "validators": dict(facts.validators),
        "head": hashlib.sha256(head).hexdigest(),
    }
    asked = {"format": request.format, "preallocate": request.preallocate, **image}
    return Bond(request=asked, source=source, target=target, way=way.value, piece=piece if way in IN_PIECES else 0)


def command(request: ImportRequest) -> str:
    """Return a digest of what decides how a disk turns out: the same for the same command, and no secret can be read in it."""
    asked = [
        request.source, request.format, request.size, request.preallocate, request.checksum_url, request.digest,
        [request.checksum.algorithm, request.checksum.hex] if request.checksum else None,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def size_of(needed: bytes | bytearray, length: int, piece: int) -> int:
    """Return the bytes in those pieces of an object of `length` bytes whose byte in `needed` is 1."""
    last = length - (len(needed) - 1) * piece
    return needed.count(1) * piece - (piece - last if needed and needed[-1] else 0)


_TURNED = bytes([1]) + bytes(255)


def decide(bond: Bond, past: Past | None, *, restart: bool, maker: str, algorithms: frozenset[str]) -> Resume:
    """Compare what is to be done with what was being done.

    `maker` and `algorithms`: what can take up digests, and which are wanted. Says why, where what is there cannot be used.
    """
    if past is None:
        return Resume()
    if restart:
        return Resume(note="begun anew, as asked (--restart)")
    changed = [one.name for one in fields(Bond) if getattr(bond, one.name) != getattr(past.bond, one.name)]
    if changed:
        return Resume(note=f"begun anew: {_WHY[changed[0]]}")
    if bond.way in AGAIN:
        return _again(past, algorithms)
    if not any(past.done):
        return Resume()
    if not algorithms:
        return Resume(done=past.done, note=_going_on(bond, past.done))
    hashed = past.hashed
    if hashed is None or not maker or hashed.maker != maker or not algorithms <= hashed.states.keys():
        return Resume(note="begun anew: all of it must be fetched again for its digest, whose state could not be kept")
    # What landed after the state was kept was hashed from bytes that are gone: it comes again, so that what is on the disk
    # and what is hashed are always the same bytes.
    done = past.done[: hashed.units]
    return Resume(done=done, hashed=hashed, note=_going_on(bond, done)) if any(done) else Resume()


def _again(past: Past, algorithms: frozenset[str]) -> Resume:
    """A digest needs all bytes as they are decoded: then even a mark does not help."""
    if past.mark is None or algorithms:
        why = "for its digest" if past.mark is not None else "as this stream cannot be begun in its middle"
        return Resume(amends=True, note=f"fetched again from the beginning, {why}; only what differs on the disk is written")
    return Resume(amends=True, mark=past.mark, note=f"goes on: {past.mark.disk >> 20} MiB of the disk were imported before")


def _going_on(bond: Bond, done: bytes) -> str:
    count = sum(done)
    amount = f"{count * bond.piece >> 20} MiB" if bond.piece else f"{count} blocks"
    return f"goes on: {amount} of the image were imported before"


_WHY = {
    "request": "what is asked for is not what was asked for before",
    "source": "the source is not what it was, or cannot prove that it is",
    "target": "the unfinished disk is another one",
    "way": "the image takes another way through the pipeline",
    "piece": "it was written in other pieces",
}
