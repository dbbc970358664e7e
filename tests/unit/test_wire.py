"""A wire puts every byte of a body in its place, however the network cuts what it receives."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from importer.sources.wire import SCRATCH, NotHttp, Wire, request


class Pipe(asyncio.Transport):
    """A transport without a network."""

    def __init__(self) -> None:
        super().__init__()
        self.sent, self.reading, self.ended = b"", True, False
        self.asked = asyncio.Semaphore(0)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)
        self.asked.release()

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        self.ended = True


class Basin:
    """Takes at most `most` bytes at a time."""

    def __init__(self, size: int, most: int) -> None:
        self.memory, self.got, self._most = bytearray(size), 0, most

    def place(self, at: int) -> memoryview:
        assert at == 1000 + self.got
        return memoryview(self.memory)[self.got : self.got + self._most]

    def filled(self, at: int, count: int) -> None:
        assert at == 1000 + self.got
        self.got += count


async def until_reading(pipe: Pipe) -> None:
    for _ in range(10):
        if pipe.reading or pipe.ended:
            return
        await asyncio.sleep(0)
    raise AssertionError("nobody reads")


async def deliver(wire: Wire, pipe: Pipe, stream: bytes, cuts: list[int]) -> None:
    """Let the wire receive a stream, each time at most as much as a cut says."""
    turn = 0
    while stream and not pipe.ended:
        await asyncio.sleep(0)
        await until_reading(pipe)
        if pipe.ended:
            return
        buffer = wire.get_buffer(-1)
        count = min(len(buffer), len(stream), cuts[turn % len(cuts)])
        buffer[:count] = stream[:count]
        wire.buffer_updated(count)
        stream, turn = stream[count:], turn + 1


@settings(deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=3000), min_size=1, max_size=4), st.lists(st.integers(1, 900), min_size=1),
    st.integers(1, 700), st.binary(max_size=20),
)  # fmt: skip
def test_bodies_are_poured_whatever_the_cuts(bodies: list[bytes], cuts: list[int], most: int, surplus: bytes) -> None:
    async def run() -> None:
        wire, pipe = Wire(10.0), Pipe()
        wire.connection_made(pipe)

        async def exchange() -> list[bytes]:
            got = []
            for number, body in enumerate(bodies):
                head = await wire.ask(request(f"/{number}", {"Host": "h"}))
                assert (head.code, head.headers["Content-Length"]) == (206, str(len(body)))
                basin = Basin(len(body), most)
                await wire.pour(1000, 1000 + len(body), basin)
                assert basin.got == len(body)
                got.append(bytes(basin.memory))
            return got

        asking = asyncio.create_task(exchange())
        for number, body in enumerate(bodies):
            await asyncio.wait_for(pipe.asked.acquire(), 5)
            head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: %d\r\nX: \xff\r\n\r\n" % len(body)
            last = number == len(bodies) - 1
            await deliver(wire, pipe, head + body + (surplus if last else b""), cuts)
        assert await asyncio.wait_for(asking, 5) == bodies
        assert pipe.ended == bool(surplus)
        assert pipe.sent.startswith(b"GET /0 HTTP/1.1\r\nHost: h\r\n\r\n")

    asyncio.run(run())


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=200), st.lists(st.integers(1, 50), min_size=1))
def test_what_is_no_http_ends_as_such(noise: bytes, cuts: list[int]) -> None:
    async def run() -> None:
        wire, pipe = Wire(10.0), Pipe()
        wire.connection_made(pipe)
        asking = asyncio.create_task(wire.ask(request("/", {})))
        await asyncio.sleep(0)
        await deliver(wire, pipe, b"?" + noise, cuts)
        error = (await asyncio.wait_for(asyncio.gather(asking, return_exceptions=True), 5))[0]
        assert isinstance(error, NotHttp)
        assert pipe.ended

    asyncio.run(run())


async def test_a_head_without_end_is_bounded() -> None:
    wire, pipe = Wire(10.0), Pipe()
    wire.connection_made(pipe)
    asking = asyncio.create_task(wire.ask(request("/", {})))
    await asyncio.sleep(0)
    await deliver(wire, pipe, b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * SCRATCH, [4096])
    error = (await asyncio.gather(asking, return_exceptions=True))[0]
    assert isinstance(error, NotHttp)
    assert "too long" in str(error)
