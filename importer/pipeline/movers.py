"""Moves raw bytes: pieces to a sink as they are, and pieces through a decoder to a sink."""

import asyncio
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from mmap import mmap
from typing import TYPE_CHECKING, Any, Protocol

from importer.disk.image import Wrapper
from importer.disk.journal import Mark
from importer.pipeline.digest import Digests
from importer.pipeline.feed import Feed
from importer.pipeline.meter import Meter
from importer.pipeline.shelf import Piece
from importer.pipeline.writer import Writer

if TYPE_CHECKING:
    from importer.disk import wrappers, xz_index

THREADS = 2
BUFFER = 1 << 20
WRITERS = 2
"""Threads that write what one decoder brings: where data lies dense, one of them takes longer than the decoder."""


class Pieces(Protocol):
    """Pieces handed on: in_order.InOrder and sequential.Sequential."""

    async def next(self) -> Piece | None:
        """Return the next piece, None at the end."""
        ...

    def release(self, piece: Piece) -> None:
        """Give it back."""
        ...


BEGINNING = Mark(source=0, disk=0)
Passed = Callable[[Mark], None]
"""Hears, on the loop, where a stream could be begun anew: all before is written."""
Done = Callable[[int, int], None]
"""Hears of each piece or block whose data was written: its number, its bytes. Called on the loop."""


class Cap(Protocol):
    """Is told how many bytes were decoded in all, and raises Failure when that is too much."""

    def __call__(self, total: int, /) -> None:
        """Judge `total`."""
        ...


async def copy(
    pieces: Pieces, writer: Writer, digests: Digests, meter: Meter, *, until: int | None, cap: Cap, done: Done | None = None
) -> int:
    """Write every piece where it belongs, up to byte `until` of the object; return how many bytes that took."""
    total = 0

    def job(piece: Piece) -> Callable[[], None]:
        nonlocal total
        total += len(piece.view)
        meter.decoded += len(piece.view)
        cap(total)
        view = piece.view if until is None else piece.view[: max(0, until - piece.start)]
        return partial(writer.write, piece.start, view)

    await share_out(pieces, job, digests, THREADS, done, end_of)
    return total


def end_of(piece: Piece) -> int:
    """Return where a piece ends in the object."""
    return piece.start + len(piece.view)


async def share_out(
    pieces: Pieces,
    job: Callable[[Piece], Callable[[], None]],
    digests: Digests,
    threads: int,
    done: Done | None,
    restart: Callable[[Piece], int],
) -> None:
    """Let threads do the job that each piece means; `job` is called in the order of the pieces, on the loop; so is `done`,
    in any order, when a piece's job and digest are done.

    `restart` is asked right after `job`: where in the object an import goes on that has all up to this piece.
    """
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(2 * threads)
    with ThreadPoolExecutor(threads, "work") as pool:
        async with asyncio.TaskGroup() as group:

            async def handle(piece: Piece, work: Callable[[], None], keep: tuple[int, ...]) -> None:
                try:
                    await asyncio.gather(loop.run_in_executor(pool, work), digests.update(piece.start, piece.view, keep))
                    if done is not None:
                        done(piece.index, len(piece.view))
                finally:
                    pieces.release(piece)
                    slots.release()

            while (piece := await pieces.next()) is not None:
                work = job(piece)
                keep = () if done is None else (restart(piece),)
                await slots.acquire()
                group.create_task(handle(piece, work, keep))


class Sink(Protocol):
    """What takes bytes in order, from a thread: a Writer, or what looks for a disk in them."""

    def write(self, offset: int, view: memoryview, /) -> None:
        """Take `view`, whose memory is used again afterwards."""
        ...


async def copy_in_order(pieces: Pieces, sink: Sink, digests: Digests, meter: Meter) -> int:
    """Hand every piece to `sink`, one after the other; return how many bytes that took."""
    loop = asyncio.get_running_loop()
    total = 0
    with ThreadPoolExecutor(1, "work") as pool:
        while (piece := await pieces.next()) is not None:
            try:
                await digests.update(piece.start, piece.view)
                await loop.run_in_executor(pool, sink.write, total, piece.view)
                total += len(piece.view)
                meter.decoded += len(piece.view)
            finally:
                pieces.release(piece)
    return total


async def decode(
    pieces: Pieces, wrapper: Wrapper, writer: Sink, digests: Digests, meter: Meter, *,
    memory: int, cap: Cap, begin: Mark = BEGINNING, passed: Passed | None = None, writers: int = WRITERS,
) -> int:  # fmt: skip
    """Decode one stream in order into the writer; return how many bytes it held. Raises Failure and stops reading.

    It is begun at `begin`; bytes before that may be left out, and are not decoded. One of `writers` writes in order.
    """
    from importer.disk import wrappers  # the decoders' libraries take 10 ms to load

    feed, loop = Feed(), asyncio.get_running_loop()
    total = 0

    def work() -> None:
        nonlocal total
        decoder = wrappers.open_decoder(wrapper, feed, memory=memory)
        total = _drain(decoder, feed, writer, meter, begin.disk, lambda count: cap(begin.disk + count), marks, writers)

    def marks(source: int, disk: int) -> None:
        if passed is not None:
            loop.call_soon_threadsafe(passed, Mark(source=begin.source + source, disk=begin.disk + disk))

    def push(piece: Piece, done: Callable[[], object]) -> None:
        if view := piece.view[max(0, begin.source - piece.start) :]:
            feed.push(view, done)
        else:
            done()

    await _beside(work, _pump(pieces, digests, push, feed.close), feed.fail)
    return begin.disk + total


async def decode_blocks(
    pieces: Pieces,
    blocks: "tuple[xz_index.XzBlock, ...]",
    writer: Writer,
    digests: Digests,
    meter: Meter,
    *,
    memory: int,
    threads: int,
    done: Callable[[int], None] | None = None,
) -> None:
    """Decode independent xz blocks, `threads` at once; each knows where its bytes belong.

    `done` hears, on the loop, which of `blocks` is written.
    """
    from importer.disk import wrappers

    feeds = [Feed() for _ in blocks]
    deal = _Deal(blocks, feeds)
    loop = asyncio.get_running_loop()

    def one(index: int) -> None:
        block = blocks[index]
        _drain(
            wrappers.decode_block(block, feeds[index], memory=memory),
            feeds[index],
            writer,
            meter,
            block.uncompressed_offset,
            _no_cap,
        )
        while feeds[index].read(BUFFER):
            pass  # padding: unread bytes would keep their buffers
        if done is not None:
            loop.call_soon_threadsafe(done, index)

    def keep(piece: Piece) -> tuple[int, ...]:
        first = bisect_left(blocks, piece.start, key=_block_end)
        return tuple(block.end for block in blocks[first : bisect_right(blocks, end_of(piece), key=_block_end)])

    def fail(error: BaseException) -> None:
        for feed in feeds:
            feed.fail(error)

    with ThreadPoolExecutor(threads, "decode") as pool:
        works = [loop.run_in_executor(pool, one, index) for index in range(len(blocks))]
        pump = asyncio.ensure_future(_pump(pieces, digests, deal.piece, deal.close, keep if done is not None else None))
        try:
            await _all_or_first(pump, *works)
        except BaseException as error:
            fail(error)
            pump.cancel()
            for work in works:
                work.cancel()
            await asyncio.gather(pump, *works, return_exceptions=True)
            raise


def _block_end(block: "xz_index.XzBlock") -> int:
    return block.end


def threads_for(dictionary: int | None, memory: int) -> int:
    """Return how many decoders with dictionaries of this many bytes may run at once; the first alone is judged elsewhere."""
    return max(1, min(THREADS, memory // dictionary)) if dictionary else THREADS


class _Deal:
    """Deals pieces of the object out to the blocks that lie in them."""

    def __init__(self, blocks: "tuple[xz_index.XzBlock, ...]", feeds: list[Feed]) -> None:
        self._blocks = blocks
        self._feeds = feeds
        self._first = 0

    def piece(self, piece: Piece, done: Callable[[], object]) -> None:
        start, end = piece.start, piece.start + len(piece.view)
        shares: list[tuple[int, memoryview]] = []
        index = self._first
        while index < len(self._blocks) and self._blocks[index].start < end:
            block = self._blocks[index]
            view = piece.view[max(0, block.start - start) : min(block.end, end) - start]
            shares.append((index, view))
            index += 1
        left = [len(shares)]
        lock = threading.Lock()

        def share_done() -> None:
            with lock:
                left[0] -= 1
                last = not left[0]
            if last:
                done()

        for index, view in shares:
            self._feeds[index].push(view, share_done)
            if self._blocks[index].end <= end:
                self._feeds[index].close()
                self._first = index + 1
        if not shares:
            done()

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()


def _no_cap(_total: int, /) -> None:
    """The index said how much there is, and the decoder holds it to that."""


def _drain(
    decoder: "wrappers.Decoder", feed: Feed, writer: Sink, meter: Meter, offset: int, cap: Cap,
    passed: Callable[[int, int], None] | None = None, writers: int = WRITERS,
) -> int:  # fmt: skip
    """Decode to the end and return how many bytes there were; `writers` threads write, so that both cores have work.

    `passed` hears of the decoder's marks once all before them is written.
    """
    clock, total = meter.clock("decode"), 0
    buffers = [memoryview(mmap(-1, BUFFER)) for _ in range(2 * writers + 2)]
    with ThreadPoolExecutor(writers, "write") as pool:
        pending: list[Any] = []
        turn = 0

        def written(write: Any, mark: tuple[int, int] | None) -> None:
            write.result()
            if passed is not None and mark is not None:
                passed(*mark)

        while True:
            buffer = buffers[turn % len(buffers)]
            if len(pending) == len(buffers):
                with clock.idle():
                    written(*pending.pop(0))
            with clock.working():
                count = decoder.readinto(buffer)
            if count:
                meter.decoded += count
                pending.append((pool.submit(writer.write, offset + total, buffer[:count]), decoder.mark))
                total += count
                cap(total)
                turn += 1
            if count < len(buffer):
                break
        for write, mark in pending:
            written(write, mark)
    clock.busy -= feed.waited
    clock.waiting += feed.waited
    return total


async def _pump(
    pieces: Pieces, digests: Digests, push: Callable[[Piece, Callable[[], object]], None], close: Callable[[], None],
    keep: Callable[[Piece], tuple[int, ...]] | None = None,
) -> None:  # fmt: skip
    """Hand pieces in byte order to threads, hashing each before its buffer can be reused."""
    loop = asyncio.get_running_loop()
    while (piece := await pieces.next()) is not None:
        await digests.update(piece.start, piece.view, keep(piece) if keep is not None else ())
        push(piece, partial(loop.call_soon_threadsafe, pieces.release, piece))
    close()


async def _beside(work: Callable[[], None], pump: Coroutine[Any, Any, None], fail: Callable[[BaseException], None]) -> None:
    """Run `work` in a thread and `pump` on the loop; when either fails, end both and raise its error."""
    thread = asyncio.ensure_future(asyncio.to_thread(work))
    task = asyncio.ensure_future(pump)
    try:
        await _all_or_first(task, thread)
    except BaseException as error:
        fail(error)
        task.cancel()
        await asyncio.gather(task, thread, return_exceptions=True)
        raise


async def _all_or_first(*awaitables: Awaitable[Any]) -> None:
    """Wait for all, raising the first error as soon as there is one; cancels nothing itself."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_EXCEPTION)
    for future in done:
        future.result()
