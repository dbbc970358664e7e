"""A modelled wide-area link: a TCP proxy that adds latency and caps rates. Started by networks.py as a process of its own.

One way takes half the round trip; opening a connection takes a whole one. Downloads are paced twice: each connection, and the
link they share, in the order in which pieces ask. There is no loss and no slow start: the model is kinder than most real links.

    wan_proxy.py UPSTREAM_HOST UPSTREAM_PORT        prints the port it listens on
"""

import asyncio
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass

ROUND_TRIP = 0.040
CONNECTION_RATE = 30e6
LINK_RATE = 125e6
PIECE = 128 << 10
BURST = 0.005
"""Seconds a sender may be behind its pace and still catch up: timers wake a little late."""
IN_FLIGHT = 24
"""Pieces under way on one connection: a little more than the rate times the round trip."""


@dataclass(slots=True)
class Pace:
    """A rate in bytes a second, as the time until which it is used up."""

    rate: float
    until: float = 0.0

    def reserve(self, now: float, size: int) -> float:
        """Return when the last of `size` bytes has left."""
        self.until = max(self.until, now - BURST) + size / self.rate
        return self.until


def departure(now: float, size: int, *paces: Pace) -> float:
    """Return when the last of `size` bytes has passed every one of the paces."""
    return max((pace.reserve(now, size) for pace in paces), default=now)


class Direction:
    """One direction of one connection: pieces leave `source` in their pace and reach `sink` after the latency."""

    def __init__(self, source: socket.socket, sink: socket.socket, *paces: Pace, not_before: float) -> None:
        self._source, self._sink, self._paces = source, sink, paces
        self._not_before = not_before
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT)

    async def carry(self) -> None:
        """Move everything until the source ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            group.create_task(self._give())

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"more"
        while data:
            data = await loop.sock_recv(self._source, PIECE)
            left = departure(loop.time(), len(data), *self._paces)
            await self._under_way.put((max(left, self._not_before) + ROUND_TRIP / 2, data))
            await _until(left)

    async def _give(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._under_way.get()
            await _until(due)
            if not data:
                with suppress(OSError):
                    self._sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(self._sink, data)


async def _until(moment: float) -> None:
    wait = moment - asyncio.get_running_loop().time()
    if wait > 0:
        await asyncio.sleep(wait)


async def _serve(client: socket.socket, upstream: tuple[str, int], link: Pace) -> None:
    loop = asyncio.get_running_loop()
    opened = loop.time() + ROUND_TRIP
    with client, socket.socket() as server, suppress(OSError, ExceptionGroup):
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(server, upstream)
        async with asyncio.TaskGroup() as group:
            group.create_task(Direction(client, server, not_before=opened).carry())
            group.create_task(Direction(server, client, Pace(CONNECTION_RATE), link, not_before=opened).carry())


async def main(host: str, port: int) -> None:
    """Listen on a free port of loopback, print it, and serve until a signal."""
    loop, link = asyncio.get_running_loop(), Pace(LINK_RATE)
    serving: set[asyncio.Task[None]] = set()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        listener.setblocking(False)
        print(listener.getsockname()[1], flush=True)
        while True:
            client, _ = await loop.sock_accept(listener)
            task = loop.create_task(_serve(client, (host, port), link))
            serving.add(task)
            task.add_done_callback(serving.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
