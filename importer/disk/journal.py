"""What an interrupted import left behind to go on from, as text: a line a record, each with its own checksum. Pure.

A record is written after the data that it speaks of is on the device. So the last line may be torn, which costs what it
told and no more; a damaged line with sound ones after it means that something else wrote here, and nothing is trusted.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

VERSION = 1
LARGEST = 64 << 20
"""Bytes: more cannot be a journal."""
MOST_PIECES = 1 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """What a journal belongs to: with any of it changed, what it tells is worth nothing."""

    request: Mapping[str, object]
    """What was asked for, as far as it decides which bytes land where."""
    source: Mapping[str, object]
    """Which version of which object: digest of the address, length, validators, digest of the head."""
    target: str
    """Device and inode of the unfinished disk."""
    way: str
    piece: int
    """Bytes of a piece, which `done` counts; 0 where it counts blocks, or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashed:
    """How far the digests of the source have come, in byte order."""

    bytes: int
    maker: str
    """What can take the states up again: see machinery.process.hash_state."""
    states: Mapping[str, str]
    """Algorithm to state, in hex."""
    units: int
    """How many leading pieces (or blocks) had landed then: no byte that was hashed is needed for any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a compressed stream can be begun in its middle: a frame or a member, and what came before it is on the disk."""

    source: int
    """Its first byte in the object."""
    disk: int
    """Where on the disk belongs what it decodes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A disk that was about to be published: if it is there under its name, the import was complete."""

    file: str
    """Device and inode."""
    size: int
    modified: int
    """Nanoseconds: a disk that was used since is another one."""
    request: str
    """Digest of what was asked for."""
    receipt: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """All that a journal tells."""

    bond: Bond
    done: bytes = b""
    """A byte for each piece of the object, 1 if its data is on the device; pieces beyond its end are not done."""
    hashed: Hashed | None = None
    mark: Mark | None = None
    finished: Finished | None = None


class Damaged(Exception):
    """These bytes are no journal that can be trusted; says why."""


def opening(bond: Bond) -> bytes:
    """Return the first line."""
    return _line({"slipstream-journal": VERSION, **asdict(bond)})


def record(done: Iterable[int], hashed: Hashed | None = None, mark: Mark | None = None) -> bytes:
    """Return the line that adds pieces that are done, with the digests and the mark as they are now."""
    more = {"hashed": hashed, "mark": mark}
    return _line({"done": _spans(sorted(done)), **{name: asdict(value) for name, value in more.items() if value is not None}})


def ending(finished: Finished) -> bytes:
    """Return the line that says that the disk is about to be published."""
    return _line({"finished": asdict(finished)})


def whole(past: Past) -> bytes:
    """Return a journal that tells what `past` does, as short as can be."""
    told = record((index for index, done in enumerate(past.done) if done), past.hashed, past.mark)
    return opening(past.bond) + told + (ending(past.finished) if past.finished else b"")


def replay(data: bytes) -> Past | None:
    """Return what a journal tells, None for one that was torn before it told anything. Raises Damaged."""
    values = [_value(line) for line in data.split(b"\n")[:-1]]
    if values and values[-1] is None:
        values.pop()
    if not values:
        return None
    sound = [value for value in values if value is not None]
    if len(sound) < len(values):
        raise Damaged("a line of it is damaged")
    past = Past(bond=_bond(sound[0]))
    done = bytearray()
    for value in sound[1:]:
        try:
            past = _after(past, value, done)
        except (KeyError, TypeError, ValueError):
            raise Damaged("a line of it makes no sense") from None
    return replace(past, done=bytes(done))


def _after(past: Past, value: dict[str, Any], done: bytearray) -> Past:
    """Return what is known after one more line; `done` grows in place."""
    if "finished" in value:
        return replace(past, finished=Finished(**value["finished"]))
    for first, last in value["done"]:
        _set(done, first, last)
    hashed = Hashed(**value["hashed"]) if "hashed" in value else past.hashed
    mark = Mark(**value["mark"]) if "mark" in value else past.mark
    return replace(past, hashed=hashed, mark=mark)


def _set(done: bytearray, first: int, last: int) -> None:
    if not 0 <= first <= last < MOST_PIECES:
        raise ValueError
    done.extend(bytes(max(0, last + 1 - len(done))))
    done[first : last + 1] = b"\x01" * (last + 1 - first)


def _line(value: dict[str, Any]) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _value(line: bytes) -> dict[str, Any] | None:
    """Return a line's value, None for one that is damaged."""
    crc, _, text = line.partition(b" ")
    try:
        value = json.loads(text) if int(crc, 16) == zlib.crc32(text) and len(crc) == 8 else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _bond(value: dict[str, Any]) -> Bond:
    version = value.pop("slipstream-journal", None)
    if version != VERSION:
        raise Damaged(f"it was written by another version of Slipstream ({version})")
    try:
        return Bond(**value)
    except TypeError:
        raise Damaged("its first line lacks something") from None


def _spans(done: list[int]) -> list[list[int]]:
    """Join neighbours: a journal of a terabyte stays short."""
    spans: list[list[int]] = []
    for index in done:
        if spans and spans[-1][1] == index - 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return spans
