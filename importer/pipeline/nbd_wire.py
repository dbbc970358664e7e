"""The words of the NBD protocol, as far as a read-only server for qemu-img needs them. Pure.

Fixed newstyle negotiation and simple replies; https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
has the whole of it. Everything is big-endian. Anything a client may send is either answered or
ends the session by Garbled: nothing in here trusts a length before it is checked.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from struct import Struct

MAX_LENGTH = 32 << 20
"""Longest single read, bytes; also the longest payload of a refused write that is skipped."""
MAX_OPTION = 4096
"""Longest option data, bytes: an export name and a few words."""

OLD_MAGIC = b"NBDMAGIC"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2
TRANSMISSION_FLAGS = 1 | 2
"""HAS_FLAGS and READ_ONLY; not CAN_MULTI_CONN: there is one client."""

INFO_EXPORT = 0
INFO_BLOCK_SIZE = 3
BLOCK_SIZES = (1, 64 << 10, MAX_LENGTH)
"""Smallest, preferred and largest read."""

CLIENT_FLAGS = Struct(">I")
OPTION = Struct(">8sII")
REQUEST = Struct(">IHHQQI")
_OPTION_REPLY = Struct(">QIII")
_SIMPLE_REPLY = Struct(">IIQ")


class Option(IntEnum):
    """What a client may ask before it reads."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7


class Reply(IntEnum):
    """How an option is answered."""

    ACK = 1
    SERVER = 2
    INFO = 3
    UNSUPPORTED = 0x80000001
    INVALID = 0x80000003
    UNKNOWN = 0x80000006


class Command(IntEnum):
    """What a client may ask once it reads."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3


class Errno(IntEnum):
    """Error numbers of the protocol, which are Linux's."""

    OK = 0
    EPERM = 1
    EIO = 5
    EINVAL = 22


class Next(StrEnum):
    """What follows an answered option."""

    OPTION = "option"
    TRANSMISSION = "transmission"
    END = "end"


class Garbled(Exception):
    """The client sent something the protocol has no answer for: the session ends."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the transmission phase. Offsets and lengths in bytes."""

    flags: int
    command: int
    cookie: int
    offset: int
    length: int


def greeting() -> bytes:
    """Return what the server says first."""
    return OLD_MAGIC + OPTION_MAGIC + (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_bytes(2, "big")


def parse_client_flags(data: bytes) -> bool:
    """Read the client's 4 bytes of flags; True if the 124 zeroes after EXPORT_NAME are to be left out."""
    (flags,) = CLIENT_FLAGS.unpack(data)
    if flags & ~(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
        raise Garbled(f"unknown client flags {flags:#x}")
    return bool(flags & FLAG_NO_ZEROES)


def parse_option(data: bytes) -> tuple[int, int]:
    """Read the 16 bytes before an option's data: its code and the length of that data, at most MAX_OPTION."""
    magic, code, length = OPTION.unpack(data)
    if magic != OPTION_MAGIC:
        raise Garbled("an option without its magic")
    if length > MAX_OPTION:
        raise Garbled(f"an option of {length} bytes")
    return code, length


def answer(code: int, data: bytes, *, size: int, no_zeroes: bool) -> tuple[bytes, Next]:
    """Answer one option for an export of `size` bytes whose name is empty."""
    if code == Option.EXPORT_NAME:
        if data:
            raise Garbled("an export that is not there")  # EXPORT_NAME knows no error reply
        return _export(size) + (b"" if no_zeroes else bytes(124)), Next.TRANSMISSION
    if code == Option.ABORT:
        return option_reply(code, Reply.ACK), Next.END
    if code == Option.LIST:
        if data:
            return option_reply(code, Reply.INVALID), Next.OPTION
        return option_reply(code, Reply.SERVER, bytes(4)) + option_reply(code, Reply.ACK), Next.OPTION
    if code in (Option.INFO, Option.GO):
        return _describe(code, data, size)
    return option_reply(code, Reply.UNSUPPORTED), Next.OPTION


def _describe(code: int, data: bytes, size: int) -> tuple[bytes, Next]:
    """Answer INFO or GO, whose data is: u32 name length, name, u16 count, count x u16 wishes."""
    name_length = int.from_bytes(data[:4], "big")
    wishes = data[4 + name_length + 2 :]
    count = int.from_bytes(data[4 + name_length : 4 + name_length + 2], "big")
    if len(data) < 6 + name_length or len(wishes) != 2 * count:
        return option_reply(code, Reply.INVALID), Next.OPTION
    if name_length:
        return option_reply(code, Reply.UNKNOWN), Next.OPTION
    parts = [option_reply(code, Reply.INFO, INFO_EXPORT.to_bytes(2, "big") + _export(size))]
    if INFO_BLOCK_SIZE in {int.from_bytes(wishes[at : at + 2], "big") for at in range(0, len(wishes), 2)}:
        sizes = b"".join(value.to_bytes(4, "big") for value in BLOCK_SIZES)
        parts.append(option_reply(code, Reply.INFO, INFO_BLOCK_SIZE.to_bytes(2, "big") + sizes))
    parts.append(option_reply(code, Reply.ACK))
    return b"".join(parts), Next.TRANSMISSION if code == Option.GO else Next.OPTION


def _export(size: int) -> bytes:
    return size.to_bytes(8, "big") + TRANSMISSION_FLAGS.to_bytes(2, "big")


def option_reply(code: int, reply: Reply, data: bytes = b"") -> bytes:
    """Encode one reply to option `code`."""
    return _OPTION_REPLY.pack(OPTION_REPLY_MAGIC, code, reply, len(data)) + data


def parse_request(buffer: bytes | bytearray | memoryview, at: int = 0) -> Request:
    """Read the request whose 28 bytes begin at `at`."""
    magic, flags, command, cookie, offset, length = REQUEST.unpack_from(buffer, at)
    if magic != REQUEST_MAGIC:
        raise Garbled("a request without its magic")
    if command == Command.WRITE and length > MAX_LENGTH:
        raise Garbled(f"a write of {length} bytes")
    return Request(flags, command, cookie, offset, length)


def judge(request: Request, size: int) -> Errno:
    """Say whether a request may be served from an export of `size` bytes."""
    if request.command == Command.FLUSH:
        return Errno.OK
    if request.command != Command.READ:
        return Errno.EPERM
    if not 0 < request.length <= MAX_LENGTH or request.offset + request.length > size:
        return Errno.EINVAL
    return Errno.OK


def reply(cookie: int, error: int = Errno.OK) -> bytes:
    """Encode the 16 bytes of a simple reply; the bytes read follow it if there is no error."""
    return _SIMPLE_REPLY.pack(SIMPLE_REPLY_MAGIC, error, cookie)
