"""qemu-img reads an image through our NBD server and writes the raw disk."""

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from importer.api.failure import Failure
from importer.disk import qemu_img
from importer.disk.extents import Extents
from importer.disk.image import Image
from importer.disk.landing import Landing
from importer.disk.space import SpaceGuard
from importer.disk.tool_part import ToolPart
from importer.pipeline import nbd
from importer.pipeline.digest import Digests
from importer.pipeline.exports import FileExport, WindowExport
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.trip import Trip
from importer.pipeline.window import Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """One image of `length` bytes and the target it goes to."""

    image: Image
    length: int
    compressed: bool
    """True if clusters are compressed: then writing around the page cache would hurt."""
    pinned: Pinned
    target: Landing
    guard: SpaceGuard | None
    meter: Meter
    policy: Policy


async def through_window(work: Conversion, fetcher: Fetcher, window: Window, digests: Digests) -> str:
    """Convert while the object is fetched; return what confined the tool. Raises Failure with the true cause."""
    clock = work.meter.clock("convert")
    export = WindowExport(window, clock, length=work.length, exact=work.image.exact_length, pinned=work.pinned)
    fetch = asyncio.create_task(fetcher.run(), name="fetch")
    fetch.add_done_callback(lambda task: window.stop(None if task.cancelled() else task.exception()))
    follow = asyncio.create_task(_follow(window, digests), name="digest") if digests.wanted else None
    try:
        sandbox = await _convert(work, export)
        if follow is not None:
            window.lead()
            await follow
    except Failure as failure:
        if fetch.done() and not fetch.cancelled():
            raise fetch.exception() or failure from failure
        raise
    finally:
        window.stop()
        await _end(fetch, follow)
    return sandbox


async def from_file(work: Conversion, fd: int) -> str:
    """Convert an object that lies in a file of ours, or in a local image."""
    return await _convert(work, FileExport(fd, length=work.length, exact=work.image.exact_length, pinned=work.pinned))


async def _convert(work: Conversion, export: WindowExport | FileExport) -> str:
    """Have every part of the target written; return what confined the tool, as it was for the last."""
    sandbox = ""
    for part in work.target.tool_parts(work.image.virtual_size):
        sandbox = await _convert_part(work, export, part)
    # Around the page cache qemu-img writes whole blocks of the file system, also where the disk ends within one.
    await asyncio.to_thread(work.target.size_to, work.image.virtual_size)
    work.meter.decoded = work.image.virtual_size
    return sandbox


async def _convert_part(work: Conversion, export: WindowExport | FileExport, part: ToolPart) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        serve = asyncio.create_task(nbd.serve(ours, export), name="nbd")
        tool = qemu_img.convert(
            format=work.image.format,
            nbd_fd=theirs.fileno(),
            part=part,
            compressed=work.compressed,
            direct=not work.compressed and work.target.takes_direct(),
            guard=work.guard,
            pulse=qemu_img.Pulse(
                served=lambda: export.reads, held=lambda: export.held, give_up_seconds=work.policy.give_up_seconds
            ),
        )
        try:
            with work.meter.clock("convert").working():
                result = await tool
        except Failure as failure:
            fault = serve.exception() if serve.done() and not serve.cancelled() else None
            raise export.failure or fault or failure from failure
        finally:
            await _end(serve)
    if export.failure is not None:  # qemu-img took an EIO for something it could do without: the disk is not to be trusted
        raise export.failure
    return result.sandbox


async def _follow(window: Window, digests: Digests) -> None:
    """Hash the object in byte order, never ahead of the reader: the window is for both of them."""
    for index in range(window.count):
        window.follow(index)
        await window.until_base(index)
        piece = await window.acquire(index, leads=window.reader_done)
        try:
            await digests.update(piece.start, piece.view)
        finally:
            window.release(piece)
    window.follow(window.count)


async def _end(*tasks: asyncio.Task[Any] | asyncio.Future[Any] | None) -> None:
    """Cancel and await."""
    for task in tasks:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task


def conversion(trip: Trip, image: Image, extents: Extents | None, pinned: Pinned, length: int) -> Conversion:
    """Return the conversion of `image`, whatever it is read from."""
    return Conversion(
        image=image,
        length=length,
        compressed=bool(image.compressed) or (extents is not None and extents.compressed_clusters > 0),
        pinned=pinned,
        target=trip.target,
        guard=trip.guard,
        meter=trip.meter,
        policy=trip.policy,
    )
