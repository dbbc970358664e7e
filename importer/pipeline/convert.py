"""qemu-img reads an image through our NBD server and writes the raw disk."""

import asyncio
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from importer.api.failure import Failure
from importer.disk import qemu_img
from importer.disk.image import Image
from importer.disk.target import Target
from importer.pipeline import nbd
from importer.pipeline.digest import Digests
from importer.pipeline.exports import FileExport, WindowExport
from importer.pipeline.fetcher import Fetcher
from importer.pipeline.meter import Meter
from importer.pipeline.pinned import Pinned
from importer.pipeline.window import Window


async def through_window(
    fetcher: Fetcher,
    window: Window,
    image: Image,
    target: Target,
    pinned: Pinned,
    digests: Digests,
    meter: Meter,
    *,
    length: int,
    compressed: bool,
) -> str:
    """Convert while the object is fetched; return what confined the tool. Raises Failure with the true cause."""
    export = WindowExport(window, meter.clock("convert"), length=length, exact=image.exact_length, pinned=pinned)
    fetch = asyncio.create_task(fetcher.run(), name="fetch")
    fetch.add_done_callback(lambda task: window.stop(None if task.cancelled() else task.exception()))
    follow = asyncio.create_task(_follow(window, digests, count=window.count), name="digest") if digests.wanted else None
    try:
        sandbox = await _convert(export, image, target, meter, compressed=compressed)
        if follow is not None:
            window.lead()
            await follow
    except Failure as failure:
        if fetch.done() and not fetch.cancelled() and isinstance(fetch.exception(), Failure):
            raise fetch.exception() or failure from failure
        raise
    finally:
        window.stop()
        await _end(fetch, follow)
    return sandbox


async def from_file(fd: int, image: Image, target: Target, pinned: Pinned, meter: Meter, *, length: int, compressed: bool) -> str:
    """Convert an object that lies in a file of ours."""
    export = FileExport(fd, length=length, exact=image.exact_length, pinned=pinned)
    return await _convert(export, image, target, meter, compressed=compressed)


async def _convert(export: WindowExport | FileExport, image: Image, target: Target, meter: Meter, *, compressed: bool) -> str:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        serve = asyncio.create_task(nbd.serve(ours, export), name="nbd")
        clock = meter.clock("convert")
        try:
            with clock.working():
                result = await _ticking(
                    qemu_img.convert(
                        format=image.format,
                        nbd_fd=theirs.fileno(),
                        target_fd=target.fd,
                        compressed=compressed,
                        direct=not compressed and target.takes_direct(),
                    ),
                    meter,
                )
        except Failure as failure:
            raise export.failure or failure from failure
        finally:
            await _end(serve)
        if export.failure is not None:  # qemu-img took an EIO for something it could do without: the disk is not to be trusted
            raise export.failure
    meter.decoded = image.virtual_size
    return result.sandbox


async def _ticking(work: Coroutine[Any, Any, qemu_img.ConvertResult], meter: Meter) -> qemu_img.ConvertResult:
    """Await the tool, telling progress in between: it reads from pinned bytes and files without a fetch."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=0.5))[0]:
            meter.tick()
        return task.result()
    finally:
        await _end(task)


async def _follow(window: Window, digests: Digests, *, count: int) -> None:
    """Hash the object in byte order, never ahead of the reader: the window is for both of them."""
    for index in range(count):
        window.follow(index)
        await window.until_base(index)
        piece = await window.acquire(index, leads=window.reader_done)
        try:
            await digests.update(piece.view)
        finally:
            window.release(piece)
    window.follow(count)


async def _end(*tasks: asyncio.Task[Any] | asyncio.Future[Any] | None) -> None:
    """Cancel and await."""
    for task in tasks:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
