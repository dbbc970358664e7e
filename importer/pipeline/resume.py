"""Whether an import goes on where another stopped, and what is then left to do. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields

from importer.api.request import ImportRequest
from importer.disk.journal import Bond, Hashed, Past
from importer.pipeline.route import Way
from importer.sources.protocol import SourceFacts

RESUMABLE = frozenset({Way.COPY, Way.NATIVE})
"""Ways on which each piece of the object has its place on the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """What earlier imports have done. The empty one begins anew."""

    done: bytes = b""
    """A byte for each piece of the object, 1 if its data is in the target; pieces beyond its end are not done."""
    hashed: Hashed | None = None
    """The digests to go on from; None: hash from the first byte."""
    note: str = ""
    """What a person should know of it, "" if nothing was there to go on from."""

    @property
    def begins_anew(self) -> bool:
        """True if nothing of what is there counts."""
        return not any(self.done)

    def missing(self, count: int, *, hashing: bool, piece: int) -> bytearray:
        """Return a byte for each of the object's `count` pieces: 1 for those to fetch.

        With `hashing`, also those that were not hashed yet.
        """
        done = self.done[:count]
        left = bytearray(b"\x01") * count
        left[: len(done)] = done.translate(_TURNED)
        if hashing:
            first = (self.hashed.bytes if self.hashed else 0) // piece
            left[first:] = b"\x01" * (count - first)
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
    return Bond(request=asked, source=source, target=target, way=way.value, piece=piece)


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
    if not any(past.done):
        return Resume()
    hashed, doubt = _digests(past, maker, algorithms)
    pieces = sum(past.done)
    note = f"goes on: {pieces * bond.piece >> 20} MiB of the image were imported before"
    return Resume(done=past.done, hashed=hashed, note=f"{note}; {doubt}" if doubt else note)


_WHY = {
    "request": "what is asked for is not what was asked for before",
    "source": "the source is not what it was, or cannot prove that it is",
    "target": "the unfinished disk is another one",
    "way": "the image takes another way through the pipeline",
    "piece": "it was written in other pieces",
}


def _digests(past: Past, maker: str, algorithms: frozenset[str]) -> tuple[Hashed | None, str]:
    """Return the digests to go on from, and what to say if there are none though some are wanted."""
    if not algorithms:
        return None, ""
    hashed = past.hashed
    if hashed is not None and maker and hashed.maker == maker and algorithms <= hashed.states.keys():
        return hashed, ""
    return None, "all of it is fetched again for its digest, whose state could not be kept"
