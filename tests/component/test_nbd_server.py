"""The NBD server on real socketpairs, with real qemu-img as its client."""

import asyncio
import json
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.pipeline import nbd
from importer.pipeline import nbd_wire as wire

BOUND = 30.0


class Bytes:
    """An export of bytes in memory, in parts of uneven size; holds book of what was handed out and back."""

    def __init__(self, data: bytes, *, size: int | None = None, bad: Callable[[int, int], bool] = lambda _o, _n: False) -> None:
        self.data = data
        self.size = len(data) if size is None else size
        self.bad = bad
        self.out = 0
        self.reads = 0
        self.asked = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def read(self, offset: int, length: int) -> list[memoryview | bytes]:
        self.reads += 1
        self.asked.set()
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(random.Random(offset).choice([0, 0, 0.001]))
        return self.cut(offset, length)

    def cut(self, offset: int, length: int) -> list[memoryview | bytes]:
        if offset + length > len(self.data) or self.bad(offset, length):
            raise nbd.ReadFailed
        view = memoryview(self.data)[offset : offset + length]
        step = max(1, length // 3)
        self.out += 1
        return [view[at : at + step] for at in range(0, length, step)] + [b""]

    def done(self, parts: nbd.Parts) -> None:
        self.out -= 1


class Prompt(Bytes):
    """The same, with every other read ready at once."""

    def ready(self, offset: int, length: int) -> list[memoryview | bytes] | None:
        return self.cut(offset, length) if (offset >> 16) % 2 else None


def source(fd: int, driver: str = "raw") -> str:
    return "json:" + json.dumps(
        {"driver": driver, "file": {"driver": "nbd", "server": {"type": "fd", "str": str(fd)}}},
    )


async def run(*argv: str, fds: tuple[int, ...] = ()) -> tuple[int, str, str]:
    child = await asyncio.create_subprocess_exec(
        *argv, pass_fds=fds, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(child.communicate(), BOUND)
    assert child.returncode is not None
    return child.returncode, out.decode(), err.decode()


async def qemu_img(export: nbd.Export, verb: str, *rest: str, driver: str = "raw") -> tuple[int, str, str]:
    """Run qemu-img on the export until both it and the server have ended."""
    ours, theirs = socket.socketpair()
    server = asyncio.create_task(nbd.serve(ours, export))
    with theirs:
        before = list(rest[:-1])
        ended = await run("qemu-img", verb, *before, source(theirs.fileno(), driver), rest[-1], fds=(theirs.fileno(),))
    await asyncio.wait_for(server, BOUND)
    return ended


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("kind", [Bytes, Prompt])
async def test_qemu_img_converts_what_is_served(tmp_path: Path, kind: type[Bytes]) -> None:
    data = noise(5 << 20) + bytes(3 << 20) + noise(1 << 20) + b"x" * 512
    export = kind(data)
    code, _, err = await qemu_img(export, "convert", "-m", "16", "-W", "-O", "raw", str(tmp_path / "out"))
    assert (code, err) == (0, "")
    assert (tmp_path / "out").read_bytes() == data
    assert export.out == 0


async def test_qemu_img_compares_what_is_served(tmp_path: Path) -> None:
    data = noise(1 << 20) + bytes(1 << 20)
    (tmp_path / "same").write_bytes(data)
    (tmp_path / "other").write_bytes(data[:-512] + b"x" * 512)
    assert (await qemu_img(Bytes(data), "compare", str(tmp_path / "same")))[0] == 0
    assert (await qemu_img(Bytes(data), "compare", str(tmp_path / "other")))[0] == 1


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
async def test_a_qcow2_is_read_through_an_export_larger_than_the_object(tmp_path: Path, compression: str) -> None:
    raw, image, out = (tmp_path / name for name in ("raw", "image", "out"))
    raw.write_bytes((noise(1 << 16) + b"text " * 20000) * 40)
    how = ["-c", "-o", f"compression_type={compression}"] if compression != "none" else []
    assert (await run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *how, str(raw), str(image)))[0] == 0
    export = Prompt(image.read_bytes(), size=1 << 41)
    code, _, err = await qemu_img(export, "convert", "-m", "16", "-W", "-O", "raw", str(out), driver="qcow2")
    assert (code, err) == (0, "")
    assert (await run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(raw), str(out)))[0] == 0


@pytest.mark.parametrize("kind", [Bytes, Prompt])
async def test_a_failed_read_is_an_input_output_error_for_qemu_img(tmp_path: Path, kind: type[Bytes]) -> None:
    export = kind(noise(8 << 20), bad=lambda offset, length: offset <= 5 << 20 < offset + length)
    code, _, err = await qemu_img(export, "convert", "-m", "16", "-W", "-O", "raw", str(tmp_path / "out"))
    assert code == 1
    assert "Input/output error" in err
    assert export.out == 0


async def test_qemu_img_info_reads_the_size() -> None:
    ours, theirs = socket.socketpair()
    server = asyncio.create_task(nbd.serve(ours, Bytes(noise(1 << 20))))
    with theirs:
        code, out, _ = await run("qemu-img", "info", "--output=json", source(theirs.fileno()), fds=(theirs.fileno(),))
    await asyncio.wait_for(server, BOUND)
    assert code == 0
    assert json.loads(out)["virtual-size"] == 1 << 20


# -- a client of our own, for what qemu-img does not do


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


async def receive(sock: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < count:
        more = await asyncio.wait_for(loop.sock_recv(sock, count - len(data)), BOUND)
        assert more, f"the server left after {len(data)} of {count} bytes"
        data += more
    return data


async def enter(sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, b"\0\0\0\3IHAVEOPT" + bytes([0, 0, 0, 1, 0, 0, 0, 0]))
    assert await receive(sock, 28)


def request(command: int, cookie: int, offset: int, length: int, payload: bytes = b"") -> bytes:
    return wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, command, cookie, offset, length) + payload


async def test_writes_are_refused_and_the_session_goes_on() -> None:
    data, loop = noise(4096), asyncio.get_running_loop()
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, Bytes(data)))
        await enter(theirs)
        await loop.sock_sendall(theirs, request(1, 1, 0, 300_000, b"w" * 300_000) + request(4, 2, 0, 512) + request(3, 3, 0, 0))
        assert await receive(theirs, 48) == wire.reply(1, 1) + wire.reply(2, 1) + wire.reply(3)
        await loop.sock_sendall(theirs, request(0, 4, 4000, 97) + request(0, 5, 100, 50))
        answers = await receive(theirs, 16 + 16 + 50)
        assert wire.reply(4, 22) in answers
        assert wire.reply(5) + data[100:150] in answers
        await loop.sock_sendall(theirs, request(2, 6, 0, 0))
        await asyncio.wait_for(server, BOUND)


async def test_more_requests_than_may_be_outstanding_are_all_answered_in_the_end() -> None:
    export, loop, count = Prompt(noise(1 << 20)), asyncio.get_running_loop(), 3000
    export.hold = asyncio.Event()
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, export))
        await enter(theirs)
        sending = asyncio.create_task(
            loop.sock_sendall(theirs, b"".join(request(0, n, (n % 16) << 16, 4096) for n in range(count)))
        )
        await asyncio.sleep(0.05)
        assert export.reads <= nbd.MAX_OUTSTANDING
        export.hold.set()
        answered = set()
        for _ in range(count):
            header = await receive(theirs, 16)
            cookie = int.from_bytes(header[8:], "big")
            start = (cookie % 16) << 16
            assert await receive(theirs, 4096) == export.data[start : start + 4096]
            answered.add(cookie)
        assert answered == set(range(count))
        await sending
        theirs.close()
        await asyncio.wait_for(server, BOUND)
    assert export.out == 0


async def test_a_client_that_leaves_cancels_its_reads() -> None:
    export = Bytes(noise(1 << 20))
    export.hold = asyncio.Event()
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, export))
        await enter(theirs)
        await asyncio.get_running_loop().sock_sendall(theirs, request(0, 1, 0, 4096))
        await asyncio.wait_for(export.asked.wait(), BOUND)
        theirs.close()
        await asyncio.wait_for(server, BOUND)


async def test_parts_come_back_when_a_client_leaves_in_the_middle_of_a_reply() -> None:
    export = Bytes(noise(32 << 20))
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, export))
        await enter(theirs)
        await asyncio.get_running_loop().sock_sendall(theirs, request(0, 1, 0, 32 << 20))
        await receive(theirs, 100_000)
        assert export.out == 1
        theirs.close()
        await asyncio.wait_for(server, BOUND)
    assert export.out == 0


async def test_cancelling_the_server_ends_the_session() -> None:
    export = Bytes(noise(1 << 20))
    export.hold = asyncio.Event()
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, export))
        await enter(theirs)
        await asyncio.get_running_loop().sock_sendall(theirs, request(0, 1, 0, 4096))
        await asyncio.wait_for(export.asked.wait(), BOUND)
        server.cancel()
        await asyncio.wait([server], timeout=BOUND)
        assert server.cancelled()
        assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""


@pytest.mark.parametrize("kind", [Bytes, Prompt])
async def test_a_fault_of_the_export_is_raised(kind: type[Bytes]) -> None:
    def broken(_offset: int, _length: int) -> bool:
        raise OSError("a disk of ours")

    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, kind(noise(1 << 20), bad=broken)))
        await enter(theirs)
        await asyncio.get_running_loop().sock_sendall(theirs, request(0, 1, 1 << 16, 4096))
        with pytest.raises(OSError, match="a disk of ours"):
            await asyncio.wait_for(server, BOUND)


async def test_an_export_that_returns_too_little_is_never_sent() -> None:
    class Short(Bytes):
        def cut(self, offset: int, length: int) -> list[memoryview | bytes]:
            return super().cut(offset, length - 1)

    export = Short(noise(1 << 20))
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, export))
        await enter(theirs)
        await asyncio.get_running_loop().sock_sendall(theirs, request(0, 1, 0, 4096))
        with pytest.raises(RuntimeError):
            await asyncio.wait_for(server, BOUND)
        assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""
    assert export.out == 0


async def session(stream: bytes) -> None:
    """Send a stream of anything, read whatever comes back, leave; the server must end, without an exception."""
    loop = asyncio.get_running_loop()
    with pair() as (ours, theirs):
        server = asyncio.create_task(nbd.serve(ours, Bytes(b"z" * 65536)))

        async def listen() -> None:
            while await loop.sock_recv(theirs, 1 << 16):
                pass

        listening = asyncio.create_task(listen())
        try:
            await loop.sock_sendall(theirs, stream)
            theirs.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        await asyncio.wait_for(server, 5)
        await asyncio.wait([listening], timeout=5)
        assert listening.done()
        if not listening.cancelled():
            assert isinstance(listening.exception(), ConnectionResetError | None)


option = st.builds(
    lambda code, data, lie: b"IHAVEOPT" + code.to_bytes(4, "big") + max(0, len(data) + lie).to_bytes(4, "big") + data,
    st.sampled_from([1, 2, 3, 5, 6, 7, 8, 99]),
    st.one_of(st.just(b""), st.just(bytes(6)), st.binary(max_size=24)),
    st.sampled_from([0, 0, 0, 0, 1, -1, 1 << 20]),
)
command = st.builds(
    request,
    st.sampled_from([0, 0, 0, 1, 2, 3, 4, 7]),
    st.integers(0, 9),
    st.integers(0, 70_000) | st.just((1 << 64) - 1),
    st.integers(0, 70_000) | st.just((1 << 32) - 1),
    st.sampled_from([b"", b"", b"x" * 28]),
)


@given(
    options=st.lists(option | st.binary(max_size=20), max_size=6),
    commands=st.lists(command | st.binary(max_size=30), max_size=12),
)
@settings(max_examples=150, deadline=None)
def test_garbage_never_hangs_the_server_and_never_crashes_it(options: list[bytes], commands: list[bytes]) -> None:
    start = b"IHAVEOPT" + bytes([0, 0, 0, 7, 0, 0, 0, 6]) + bytes(6)
    asyncio.run(session(b"\0\0\0\3" + b"".join(options) + b"".join(commands)))
    asyncio.run(session(b"\0\0\0\3" + start + b"".join(commands)))
