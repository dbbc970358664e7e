"""Wrapped objects made by the real tools, and how the tests read them."""

import dataclasses
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

from importer.api.failure import Failure
from importer.disk import xz_index
from importer.disk.decoding import Decoder
from importer.disk.image import Wrapper
from importer.disk.reads import over
from importer.disk.wrappers import open_decoder

MIB = 1 << 20
SKIPPABLE = b"\x50\x2a\x4d\x18" + (9).to_bytes(4, "little") + b"skip this"
EXECUTABLE = Path(sys.executable).read_bytes()


def payload(size: int) -> bytes:
    """Return bytes like a disk's: code, holes, noise, and an end that the last block cannot compress."""
    part = size // 4
    noise = random.Random(7).randbytes(part)
    code = (EXECUTABLE * (1 + part // len(EXECUTABLE)))[:part]
    return code + bytes(part) + noise + code[: part // 2] + noise[: size - 3 * part - part // 2]


BIG = payload(5 * MIB + 11)
SMALL = payload(400_000)
OTHER = bytes(range(256)) * 40


def tool(command: str, data: bytes) -> bytes:
    return subprocess.run(command.split(), input=data, capture_output=True, check=True, timeout=60).stdout


@dataclasses.dataclass(frozen=True)
class Made:
    """An object made of members, each with what it decodes to; cut between two of them it is whole."""

    wrapper: Wrapper
    members: tuple[tuple[bytes, bytes], ...]

    @property
    def data(self) -> bytes:
        return b"".join(data for data, _ in self.members)

    @property
    def text(self) -> bytes:
        return b"".join(text for _, text in self.members)

    def whole_at(self) -> dict[int, bytes]:
        ends, place, text = {}, 0, b""
        for data, decoded in self.members:
            place, text = place + len(data), text + decoded
            ends[place] = text
        return ends


CASES: dict[str, Callable[[bytes], Made]] = {}


def case(name: str, wrapper: Wrapper, *commands: str | bytes) -> None:
    """Note an object whose members are made by commands from the payload (every second one from OTHER), or given as bytes."""

    def make(text: bytes) -> Made:
        texts = cycle((text, OTHER))
        members = [(one, b"") if isinstance(one, bytes) else (tool(one, data := next(texts)), data) for one in commands]
        return Made(wrapper, tuple(members))

    CASES[name] = make


case("gzip", Wrapper.GZIP, "gzip -c")
case("gzip best", Wrapper.GZIP, "gzip -9nc")
case("pigz", Wrapper.GZIP, "pigz -p 2 -c")
case("gzip members", Wrapper.GZIP, "gzip -1c", "pigz -c", "gzip -c")
case("xz", Wrapper.XZ, "xz -1 -T1 -c")
case("xz blocks", Wrapper.XZ, "xz -1 -T2 --block-size=1MiB -c")
case("xz small blocks", Wrapper.XZ, "xz -0 -T2 --block-size=64KiB -C sha256 -c")
case("xz streams", Wrapper.XZ, "xz -0 -c", bytes(8), "xz -0 -C crc32 -c", "xz -0 -C none -c", bytes(4))
case("zstd", Wrapper.ZSTD, "zstd -q -c")
case("zstd best", Wrapper.ZSTD, "zstd -q -19 -c")
case("zstd unchecked", Wrapper.ZSTD, "zstd -q --no-check -c")
case("zstd long", Wrapper.ZSTD, "zstd -q --long=27 -c")
case("zstd frames", Wrapper.ZSTD, SKIPPABLE, "zstd -q -1 -c", SKIPPABLE, "zstd -q --no-check -c", "zstd -q -c", SKIPPABLE)
CASES["zstd sized"] = lambda text: Made(Wrapper.ZSTD, ((tool(f"zstd -q --stream-size={len(text)} -c", text), text),))
CASES["zstd and nothing"] = lambda text: Made(
    Wrapper.ZSTD, ((tool("zstd -q -c", b""), b""), (tool("zstd -q -c", text), text), (tool("zstd -q -c", b""), b""))
)
CASES["gzip and nothing"] = lambda text: Made(
    Wrapper.GZIP, ((tool("gzip -c", b""), b""), (tool("gzip -c", text), text), (tool("gzip -c", b""), b""))
)
CASES["xz and nothing"] = lambda text: Made(
    Wrapper.XZ, ((tool("xz -c", b""), b""), (tool("xz -0c", text), text), (tool("xz -c", b""), b""))
)
CHECKED = [name for name in CASES if name not in {"zstd unchecked", "zstd frames", "xz streams"}]
MEMO: dict[tuple[str, int], Made] = {}


def made(name: str, text: bytes) -> Made:
    key = name, len(text)
    if key not in MEMO:
        MEMO[key] = CASES[name](text)
    return MEMO[key]


class Pieces:
    """A feed of bytes in memory, in pieces whose sizes come from `size`."""

    def __init__(self, data: bytes, size: Callable[[], int] = lambda: 1 << 30) -> None:
        self.data = data
        self.at = 0
        self.size = size

    def read(self, size: int, /) -> bytes:
        part = self.data[self.at : self.at + min(size, self.size())]
        self.at += len(part)
        return part


def drain(decoder: Decoder, size: int = MIB) -> bytes:
    """Read a decoder to its verified end through one buffer of `size` bytes."""
    buffer, out = memoryview(bytearray(size)), bytearray()
    while True:
        got = decoder.readinto(buffer)
        out += buffer[:got]
        if got < size:
            assert decoder.readinto(buffer) == 0
            return bytes(out)


def decode(wrapper: Wrapper, data: bytes, memory: int = 256 * MIB) -> bytes:
    return drain(open_decoder(wrapper, Pieces(data), memory=memory))


def outcome(call: Callable[[], bytes]) -> str | bytes:
    """Return what was decoded, or the code of the Failure instead."""
    try:
        return call()
    except Failure as failure:
        return failure.code


def blocks_of(data: bytes) -> tuple[xz_index.XzBlock, ...]:
    return over(data, xz_index.read_index(len(data)))
