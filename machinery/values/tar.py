"""Tar as it streams by: ustar, GNU long names, pax. Pure: bytes in, members out, whatever the sizes of the chunks.

Our own because tarfile reads pax headers of any size into memory and wants a file object to pull from.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

BLOCK = 512
LONGEST_NAME = 64 << 10
LONGEST_PAX = 1 << 20
"""Bytes of one extended header; extended attributes make honest ones long."""
MOST_EXTENSIONS = 16
"""Headers before one member that only say more about it."""
MOST_MEMBERS = 4_000_000
LARGEST = 1 << 62
"""Bytes of one member."""


class Kind(StrEnum):
    """What a member is, in words for people."""

    FILE = "file"
    HARD_LINK = "hard link"
    SYMBOLIC_LINK = "symbolic link"
    CHARACTER_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    DIRECTORY = "directory"
    FIFO = "fifo"
    SPARSE = "sparse file"
    OTHER = "member of another kind"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member. Its data are the bytes offset..offset + size of the stream; where a file is sparse they are not its content."""

    name: str
    """As it stands there, with bytes that are no UTF-8 as surrogates."""
    kind: Kind
    size: int
    offset: int
    link: str = ""
    """What a link leads to."""
    mode: int = 0o644
    """Permission bits with setuid, setgid and sticky."""
    mtime_ns: int = 0
    """Nanoseconds since 1970; 0 where the header tells nothing sensible."""


class BadTar(ValueError):
    """The stream is no tar, or one that nobody honest makes. `code` is corrupt, truncated, unsupported or unsafe."""

    def __init__(self, code: str, cause: str, **evidence: object) -> None:
        """Say what is wrong and where."""
        super().__init__(cause)
        self.code = code
        self.cause = cause
        self.evidence = {key: str(value) for key, value in evidence.items()}


_KINDS = {
    b"0": Kind.FILE, b"\0": Kind.FILE, b"7": Kind.FILE, b"1": Kind.HARD_LINK, b"2": Kind.SYMBOLIC_LINK,
    b"3": Kind.CHARACTER_DEVICE, b"4": Kind.BLOCK_DEVICE, b"5": Kind.DIRECTORY, b"6": Kind.FIFO, b"S": Kind.SPARSE,
}  # fmt: skip
_LENGTH = re.compile(rb"([0-9]{1,7}) ")
_SECONDS = re.compile(rb"(-?)([0-9]{1,12})(?:\.([0-9]{0,40}))?")
_LATEST = 253_402_300_800
_HEADER_ONLY = b"123456"
"""Types whose size, if there is one, counts no data in the stream."""


@dataclass(slots=True)
class _Said:
    """What the headers before a member say about it."""

    headers: int = 0
    name: str | None = None
    link: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    sparse: bool = False


class TarScanner:
    """Finds the members of one stream. Holds one header at a time; the data of members are counted, not kept."""

    def __init__(self) -> None:
        """Begin at the first byte."""
        self.position = 0
        """Bytes of the stream seen."""
        self.members = 0
        self.ended = False
        """True once the mark of the end was seen: what follows is padding."""
        self._have = bytearray()
        self._need = BLOCK
        self._skip = 0
        self._zero_blocks = 0
        self._said = _Said()
        self._kept: tuple[bytes, int] | None = None
        """Type and size of an extended header whose text is being collected."""
        self._sparse: Member | None = None
        """A sparse member whose map goes on in blocks of its own."""

    def feed(self, data: bytes | memoryview) -> list[Member]:
        """Return the members whose headers end within the next bytes of the stream. Raises BadTar."""
        view, at, found = memoryview(data), 0, list[Member]()
        while at < len(view) and not self.ended:
            if self._skip:
                step = min(self._skip, len(view) - at)
                self._skip -= step
            else:
                step = min(self._need - len(self._have), len(view) - at)
                self._have += view[at : at + step]
            at += step
            self.position += step
            if len(self._have) == self._need:
                found += self._taken()
        self.position += len(view) - at
        return found

    def skip(self) -> int:
        """Pass over the rest of a member's data without seeing it, where the stream can be seeked; return its bytes."""
        step, self._skip = self._skip, 0
        self.position += step
        return step

    def end(self) -> None:
        """Tell that the stream is over. Raises BadTar("truncated") in the midst of a member."""
        if not self.ended and (self._skip or self._have or self._kept or self._sparse or self._said.headers):
            raise BadTar("truncated", "the tar ends in the midst of a member", offset=self.position)

    def _taken(self) -> list[Member]:
        block = bytes(self._have)
        self._have.clear()
        if self._kept is not None:
            self._read_extension(block)
            return []
        if self._sparse is not None:
            return self._sparse_map_goes_on(block[504], self._sparse)
        return self._header(block)

    def _header(self, block: bytes) -> list[Member]:
        if not block.strip(b"\0"):
            self._zero_blocks += 1
            if self._said.headers:
                raise BadTar("corrupt", "the tar ends after a header that describes the next member", offset=self.position)
            self.ended = self._zero_blocks == 2
            return []
        if self._zero_blocks:
            raise BadTar("corrupt", "the tar goes on after a block of zeroes", offset=self.position)
        _check_sum(block, self.position - BLOCK)
        kind, size = block[156:157], _number(block[124:136], self.position - BLOCK)
        if kind in b"LKxXg":
            self._extension(kind, size)
            return []
        if kind == b"M":
            raise BadTar("unsupported", "a member continues one of another volume", offset=self.position - BLOCK)
        return self._member(block, kind, size)

    def _extension(self, kind: bytes, size: int) -> None:
        self._said.headers += 1
        if self._said.headers > MOST_EXTENSIONS:
            raise BadTar("unsafe", "headers follow headers and no member", offset=self.position, limit=MOST_EXTENSIONS)
        limit = LONGEST_NAME if kind in b"LK" else LONGEST_PAX
        if size > limit:
            raise BadTar("unsafe", "a header of the tar is longer than the limit", offset=self.position, bytes=size, limit=limit)
        self._kept, self._need = (kind, size), _padded(size)
        if not size:
            self._read_extension(b"")

    def _read_extension(self, block: bytes) -> None:
        assert self._kept is not None
        kind, size = self._kept
        self._kept, self._need = None, BLOCK
        text = block[:size]
        if kind == b"L":
            self._said.name = self._said.name or _text(text)
        elif kind == b"K":
            self._said.link = self._said.link or _text(text)
        else:
            self._pax(_records(text, self.position), everywhere=kind == b"g")

    def _pax(self, records: dict[str, bytes], *, everywhere: bool) -> None:
        said = self._said
        sparse = any(key.startswith("GNU.sparse.") for key in records)
        if everywhere and (sparse or not records.keys().isdisjoint(("path", "linkpath", "size"))):
            raise BadTar("unsupported", "a global header names all members alike", offset=self.position)
        said.sparse |= sparse
        if records.get("path"):
            said.name = records["path"].decode("utf-8", "surrogateescape")
        if records.get("GNU.sparse.name"):
            said.name = records["GNU.sparse.name"].decode("utf-8", "surrogateescape")
        if records.get("linkpath"):
            said.link = records["linkpath"].decode("utf-8", "surrogateescape")
        if records.get("size"):
            said.size = _decimal(records["size"], self.position)
        if records.get("mtime"):
            said.mtime_ns = _moment(records["mtime"])

    def _member(self, block: bytes, flag: bytes, size: int) -> list[Member]:
        said, self._said = self._said, _Said()
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise BadTar("unsafe", "the tar has more members than the limit", limit=MOST_MEMBERS)
        size = 0 if flag in _HEADER_ONLY else size if said.size is None else said.size
        name = said.name or _name(block)
        kind = _KINDS.get(flag, Kind.OTHER)
        if kind is Kind.FILE and name.endswith("/"):  # so before there were types
            kind = Kind.DIRECTORY
        elif kind is Kind.FILE and said.sparse:
            kind = Kind.SPARSE
        member = Member(
            name=name,
            kind=kind,
            size=size,
            offset=self.position,
            link=said.link or _text(block[157:257]),
            mode=_lenient(block[100:108]) & 0o7777,
            mtime_ns=_lenient(block[136:148]) * 10**9 if said.mtime_ns is None else said.mtime_ns,
        )
        if flag == b"S" and block[482]:
            self._sparse = member
            return []
        self._skip = _padded(size)
        return [member]

    def _sparse_map_goes_on(self, more: int, member: Member) -> list[Member]:
        if more:
            return []
        self._sparse = None
        self._skip = _padded(member.size)
        return [replace(member, offset=self.position)]


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""  # GNU's magic has other things there
    return f"{prefix}/{name}" if prefix else name


def _check_sum(block: bytes, offset: int) -> None:
    told = _number(block[148:156], offset)
    blank = block[:148] + b" " * 8 + block[156:]
    if told != sum(blank) and told != sum(byte - 256 if byte > 127 else byte for byte in blank):
        raise BadTar("corrupt", "a header of the tar does not match its checksum", offset=offset)


def _number(field: bytes, offset: int) -> int:
    """Return an octal number, or one in base 256 as GNU writes large ones."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & 0x40 or value > LARGEST:
            raise BadTar("corrupt", "a header of the tar holds a number that is negative or absurd", offset=offset)
        return value
    text = field.strip(b" \0")
    if not re.fullmatch(rb"[0-7]*", text):
        raise BadTar("corrupt", "a header of the tar holds no number where one belongs", offset=offset)
    return int(text or b"0", 8)


def _lenient(field: bytes) -> int:
    """Return a number that nothing depends on, 0 if it is none or later than the year 9999."""
    try:
        number = _number(field, 0)
    except BadTar:
        return 0
    return number if number < _LATEST else 0


def _moment(text: bytes) -> int:
    """Return the nanoseconds of a pax time such as 1700000000.25, 0 if it is none or absurd."""
    found = _SECONDS.fullmatch(text)
    if found is None or int(found[2]) >= _LATEST:
        return 0
    moment = int(found[2]) * 10**9 + int((found[3] or b"").ljust(9, b"0")[:9])
    return -moment if found[1] else moment


def _decimal(text: bytes, offset: int) -> int:
    if not re.fullmatch(rb"[0-9]{1,19}", text) or int(text) > LARGEST:
        raise BadTar("corrupt", "a pax header holds a size that is none", offset=offset)
    return int(text)


def _records(text: bytes, offset: int) -> dict[str, bytes]:
    """Return the records of a pax header: each is `LENGTH KEY=VALUE` and a newline, all of it counted by LENGTH."""
    records, at = dict[str, bytes](), 0
    text = text.rstrip(b"\0")  # with which some writers pad
    while at < len(text):
        found = _LENGTH.match(text, at)
        end = at + int(found[1]) if found else 0
        record = text[found.end() : end] if found and end <= len(text) else b""
        key, equals, value = record[:-1].partition(b"=")
        if not key or not equals or not record.endswith(b"\n"):
            raise BadTar("corrupt", "a pax header contradicts itself", offset=offset)
        records[key.decode("utf-8", "replace")] = value
        at = end
    return records
