"""Which way an image takes through the pipeline, and why. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from importer.disk.image import Format, Wrapper


class Way(StrEnum):
    """The ways there are."""

    BLANK = "blank"
    """Nothing is read: the disk is empty."""
    COPY = "copy"
    """Raw bytes by parallel ranges, written where they belong."""
    STREAM = "stream"
    """Raw bytes over one connection."""
    DECODE = "decode"
    """One compressed stream, decoded in order."""
    BLOCKS = "blocks"
    """Independent xz blocks, decoded side by side."""
    NATIVE = "native"
    """Data as the tables map it, read in the order of the image's bytes and decoded by ourselves."""
    CONVERT = "convert"
    """qemu-img reads the image through a read-ahead window while it is fetched."""
    SPILL = "spill"
    """The image is first put into an unlinked file, then read by qemu-img from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way with its reason, in words for the receipt."""

    way: Way
    reason: str


def choose(
    *,
    format: Format,
    raw: bool,
    wrapper: Wrapper | None,
    ranges: bool,
    length: int | None,
    in_order: bool,
    local: bool,
    blocks: int,
    obstacle: str,
) -> Route:
    """Choose the way with the fewest copies that serves the image.

    `raw`: its bytes are the disk's. `in_order`: its tables lead through the object so that a bounded window suffices.
    `local`: it can be read in any order at no cost. `obstacle`: why the native reader cannot take it, "" if it can.
    """
    if wrapper is not None:
        if format is not Format.RAW:
            return Route(
                way=Way.SPILL, reason=f"{format} inside {wrapper} must be read out of order, so it is decoded into a spill first"
            )
        if blocks > 1:
            return Route(way=Way.BLOCKS, reason=f"{blocks} independent xz blocks are decoded side by side")
        return Route(way=Way.DECODE, reason=f"one {wrapper} stream is decoded while it is fetched")
    known = ranges and length is not None
    if raw:
        if known:
            return Route(way=Way.COPY, reason="raw bytes go by parallel ranges straight to their place")
        return Route(way=Way.STREAM, reason="the server serves no ranges: raw bytes come over one connection")
    if known and not obstacle:
        return Route(way=Way.NATIVE, reason=f"the {format} tables are read here, and each byte of the image once, in its order")
    if local and known:
        return Route(way=Way.CONVERT, reason=f"qemu-img reads the local image through our descriptor: {obstacle}")
    if not known:
        return Route(
            way=Way.SPILL,
            reason=f"{format} must be read out of order and the server serves no ranges, so it goes to a spill first",
        )
    if not in_order:
        return Route(
            way=Way.SPILL,
            reason="its clusters lie in an order that would fetch bytes again and again, so it goes to a spill first",
        )
    return Route(way=Way.CONVERT, reason=f"qemu-img reads through a read-ahead window while the image is fetched: {obstacle}")
