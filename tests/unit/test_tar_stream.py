"""The tar scanner: what real tars hold, in chunks of any size, and what hostile ones come to."""

import io
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from machinery.values.tar import BLOCK, LONGEST_PAX, BadTar, Kind, Member, TarScanner

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=300)
KINDS = {
    tarfile.REGTYPE: Kind.FILE, tarfile.DIRTYPE: Kind.DIRECTORY, tarfile.SYMTYPE: Kind.SYMBOLIC_LINK,
    tarfile.LNKTYPE: Kind.HARD_LINK, tarfile.FIFOTYPE: Kind.FIFO, tarfile.CHRTYPE: Kind.CHARACTER_DEVICE,
}  # fmt: skip


def scan(data: bytes, step: int = 1 << 20, *, whole: bool = True) -> list[Member]:
    scanner, found = TarScanner(), list[Member]()
    for at in range(0, len(data), step):
        found += scanner.feed(memoryview(data)[at : at + step])
    assert scanner.position == len(data)
    if whole:
        scanner.end()
    return found


def header(name: bytes = b"a", size: bytes = b"00000000000\0", kind: bytes = b"0", **fields: bytes) -> bytes:
    """One block with a right checksum, whatever it says."""
    block = bytearray(BLOCK)
    block[:100] = name.ljust(100, b"\0")
    block[100:108] = b"0000644\0"
    block[124:136] = size
    block[156:157] = kind
    block[257:265] = fields.get("magic", b"ustar\x0000")
    block[345 : 345 + len(fields.get("prefix", b""))] = fields.get("prefix", b"")
    block[482:483] = fields.get("extended", b"\0")
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def record(key: str, value: bytes) -> bytes:
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(body) + len(str(length)):
        length = len(body) + len(str(length))
    return str(length).encode() + body


def extended(text: bytes, kind: bytes = b"x") -> bytes:
    return header(b"pax", octal(len(text)), kind) + padded(text)


END = bytes(2 * BLOCK)
ENDS = {"fine", "corrupt", "truncated", "unsupported", "unsafe"}


def code(data: bytes) -> str:
    return ends(data, 1 << 20)


def ends(data: bytes, step: int) -> str:
    scanner = TarScanner()
    try:
        for at in range(0, len(data), step):
            scanner.feed(data[at : at + step])
        scanner.end()
    except BadTar as bad:
        return bad.code
    return "fine"


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.tuples(NAMES, st.sampled_from(sorted(KINDS)), st.integers(0, 3000), NAMES), max_size=8),
    dialect=st.sampled_from(["gnu", "pax"]),
    step=st.integers(1, 3000),
)
def test_what_tarfile_writes_is_read_in_chunks_of_any_size(members, dialect, step):
    buffer = io.BytesIO()
    told = []
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[dialect]) as tar:
        for name, kind, size, link in members:
            info = tarfile.TarInfo(name.rstrip("/") or "x")
            info.type = kind
            info.size = size if kind == tarfile.REGTYPE else 0
            info.linkname = link if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            tar.addfile(info, io.BytesIO(b"d" * info.size))
            told.append((info.name, KINDS[kind], info.size, info.linkname))
    data = buffer.getvalue()
    found = scan(data, step)
    assert [(one.name.rstrip("/"), one.kind, one.size, one.link) for one in found] == told
    assert all(data[one.offset : one.offset + one.size] == b"d" * one.size for one in found)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=4 * BLOCK), step=st.integers(1, 700))
def test_any_bytes_end_in_members_or_in_a_failure(data, step):
    assert ends(data, step) in ENDS


@settings(max_examples=200, deadline=None)
@given(
    place=st.integers(0, BLOCK - 1), value=st.integers(0, 255), kind=st.sampled_from([b"0", b"L", b"x", b"S", b"1", b"5", b"\0"])
)
def test_a_flipped_byte_under_a_right_checksum_ends_in_members_or_in_a_failure(place, value, kind):
    block = bytearray(header(kind=kind, size=octal(512)))
    block[place] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    assert code(bytes(block) + bytes(BLOCK) + END) in ENDS


@example(cut=1)
@given(cut=st.integers(1, 3 * BLOCK - 1))
def test_a_cut_tar_is_noticed_save_at_the_end_of_a_member(cut):
    data = header(size=octal(700)) + padded(b"d" * 700)
    assert code(data[:cut]) == "truncated"
    assert code(data) == "fine"


def test_the_prefix_of_ustar_comes_first_and_what_gnu_keeps_there_does_not():
    assert scan(header(b"b", prefix=b"a") + END)[0].name == "a/b"
    assert scan(header(b"b", prefix=b"a", magic=b"ustar  \0") + END)[0].name == "b"


def test_sizes_in_base_256_are_read_and_negative_ones_refused():
    large = 9 << 30
    assert scan(header(size=b"\x80" + large.to_bytes(11, "big")), whole=False)[0].size == large
    for bad in (b"\xff" * 12, b"\xc0" + bytes(11), b"\x80" + b"\xff" * 11, b"-0000000001\0", b"9999999999 \0", b"0x000000001\0"):
        assert code(header(size=bad) + END) == "corrupt"


def test_pax_sizes_are_read_and_those_that_are_none_refused():
    assert scan(extended(record("size", b"700")) + header() + padded(b"d" * 700) + END)[0].size == 700
    for bad in (b"-1", b"1e3", b"99999999999999999999", b" 1", b"9" * 19):
        assert code(extended(record("size", bad)) + header() + END) == "corrupt"


def test_a_pax_header_counts_for_one_member():
    data = extended(record("path", b"disk/a")) + header(b"x") + header(b"y") + END
    assert [one.name for one in scan(data)] == ["disk/a", "y"]


def test_pax_headers_that_contradict_themselves_are_refused():
    for text in (b"99 path=a\n", b"5 path=a\n", b"path=a\n", b"0 path=a\n", b"9 pathxa\n", b"10 path=ab", b"7 =aaa\n"):
        assert code(extended(text) + header() + END) == "corrupt", text


def test_a_global_header_may_comment_but_not_name():
    assert code(extended(record("comment", b"0" * 40), b"g") + header() + END) == "fine"
    assert code(extended(record("path", b"disk/a"), b"g") + header() + END) == "unsupported"
    assert code(extended(record("size", b"1"), b"g") + header() + END) == "unsupported"


def test_sparse_members_are_told_apart():
    old = header(kind=b"S", size=octal(512), extended=b"\1") + (bytes(504) + b"\1" + bytes(7)) + bytes(BLOCK) + b"d" * 512
    (found, after) = scan(old + header(b"next") + END)
    assert (found.kind, found.size, old[found.offset : found.offset + 512]) == (Kind.SPARSE, 512, b"d" * 512)
    assert after.name == "next"
    new = extended(record("GNU.sparse.major", b"1") + record("GNU.sparse.name", b"disk/a")) + header(b"GNUSparseFile.0/a") + END
    assert [(one.kind, one.name) for one in scan(new)] == [(Kind.SPARSE, "disk/a")]


@pytest.mark.parametrize("kind", [b"L", b"x"])
def test_headers_without_end_are_refused(kind):
    text = b"a" * 20 if kind == b"L" else record("path", b"a")
    assert code(extended(text, kind) * 40 + header() + END) == "unsafe"
    assert code(extended(text, kind) + END) == "corrupt"
    assert code(header(kind=kind) * 40 + header() + END) == "unsafe"  # empty ones


def test_a_huge_header_is_refused_before_it_is_held():
    assert code(header(size=octal(LONGEST_PAX + 1), kind=b"x")) == "unsafe"
    assert code(header(size=octal(1 << 17), kind=b"L")) == "unsafe"
    assert code(header(size=b"\x80" + (1 << 60).to_bytes(11, "big"), kind=b"x")) == "unsafe"


def test_a_wrong_checksum_is_refused():
    block = bytearray(header())
    block[0] ^= 1
    assert code(bytes(block) + END) == "corrupt"


def test_what_follows_the_end_is_padding():
    assert [one.name for one in scan(header() + END + header(b"hidden") + b"rubbish")] == ["a"]
    assert code(header() + bytes(BLOCK) + header(b"b") + END) == "corrupt"
    assert code(b"") == "fine"


def test_data_are_skipped_without_being_held():
    scanner = TarScanner()
    scanner.feed(header(size=octal((1 << 33) - 1)))
    for _ in range(3):
        scanner.feed(memoryview(bytes(1 << 20)))
        assert len(scanner._have) == 0
    assert scanner.position == BLOCK + (3 << 20)
    left = scanner.skip()
    assert scanner.position == BLOCK + (1 << 33)
    assert left == (1 << 33) - (3 << 20)


@pytest.mark.parametrize("form", FORMATS)
@given(mode=st.integers(0, 0o7777), seconds=st.integers(0, 1 << 33))
def test_modes_and_times_are_handed_out(form: str, mode: int, seconds: int) -> None:
    info = tarfile.TarInfo("a")
    info.mode, info.mtime = mode, seconds if form != "ustar" else seconds % (8**11)
    (found,) = scan(info.tobuf(FORMATS[form]) + bytes(2 * BLOCK))
    assert (found.mode, found.mtime_ns) == (mode, int(info.mtime) * 10**9)


@pytest.mark.parametrize(
    ("said", "mtime_ns"), [("1.5", 1_500_000_000), ("-1.25", -1_250_000_000), ("7", 7 * 10**9), ("x", 0), ("9" * 12, 0)]
)
def test_a_pax_time_has_fractions_and_nonsense_is_no_time(said: str, mtime_ns: int) -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {"mtime": said}
    (found,) = scan(info.tobuf(tarfile.PAX_FORMAT) + bytes(2 * BLOCK))
    assert found.mtime_ns == mtime_ns
