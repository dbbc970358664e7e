"""The NBD protocol's words, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.pipeline import nbd_wire as wire

SIZE = 1 << 30


def go(name: bytes = b"", wishes: tuple[int, ...] = ()) -> bytes:
    wished = b"".join(wish.to_bytes(2, "big") for wish in wishes)
    return len(name).to_bytes(4, "big") + name + len(wishes).to_bytes(2, "big") + wished


def replies(data: bytes) -> list[tuple[int, int, bytes]]:
    """Split a run of option replies as a client does: (option, reply type, data)."""
    found = []
    while data:
        assert data[:8] == (0x0003E889045565A9).to_bytes(8, "big")
        option, kind, length = (int.from_bytes(data[at : at + 4], "big") for at in (8, 12, 16))
        assert len(data) >= 20 + length
        found.append((option, kind, data[20 : 20 + length]))
        data = data[20 + length :]
    return found


def test_the_greeting_is_18_bytes_of_fixed_newstyle() -> None:
    assert wire.greeting() == b"NBDMAGICIHAVEOPT\x00\x03"


@pytest.mark.parametrize(("flags", "no_zeroes"), [(0, False), (1, False), (3, True)])
def test_client_flags_tell_whether_zeroes_are_left_out(flags: int, no_zeroes: bool) -> None:
    assert wire.parse_client_flags(flags.to_bytes(4, "big")) is no_zeroes


def test_unknown_client_flags_end_the_session() -> None:
    with pytest.raises(wire.Garbled):
        wire.parse_client_flags((4).to_bytes(4, "big"))


def test_export_name_is_answered_by_size_and_read_only_flags() -> None:
    head = SIZE.to_bytes(8, "big") + b"\x00\x03"
    assert wire.answer(1, b"", size=SIZE, no_zeroes=True) == (head, wire.Next.TRANSMISSION)
    assert wire.answer(1, b"", size=SIZE, no_zeroes=False) == (head + bytes(124), wire.Next.TRANSMISSION)


def test_export_name_of_another_export_ends_the_session() -> None:
    with pytest.raises(wire.Garbled):
        wire.answer(1, b"secret", size=SIZE, no_zeroes=True)


def test_go_leads_to_transmission_and_info_does_not() -> None:
    data, following = wire.answer(7, go(), size=SIZE, no_zeroes=True)
    assert following is wire.Next.TRANSMISSION
    assert replies(data) == [(7, 3, b"\x00\x00" + SIZE.to_bytes(8, "big") + b"\x00\x03"), (7, 1, b"")]
    data, following = wire.answer(6, go(), size=SIZE, no_zeroes=True)
    assert following is wire.Next.OPTION
    assert [kind for _, kind, _ in replies(data)] == [3, 1]


def test_block_sizes_are_told_to_those_who_ask() -> None:
    data, _ = wire.answer(7, go(wishes=(1, 3)), size=SIZE, no_zeroes=True)
    assert [payload for _, kind, payload in replies(data) if kind == 3][1] == bytes.fromhex("0003 00000001 00010000 02000000")


def test_go_for_another_export_is_unknown() -> None:
    data, following = wire.answer(7, go(b"other"), size=SIZE, no_zeroes=True)
    assert (replies(data), following) == ([(7, 0x80000006, b"")], wire.Next.OPTION)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", bytes(5), b"\xff\xff\xff\xff\0\0", bytes(7), bytes(4) + b"\0\2\0\0"])
def test_malformed_go_is_invalid(data: bytes) -> None:
    answered, following = wire.answer(7, data, size=SIZE, no_zeroes=True)
    assert (replies(answered), following) == ([(7, 0x80000003, b"")], wire.Next.OPTION)


def test_list_names_the_one_export() -> None:
    data, _ = wire.answer(3, b"", size=SIZE, no_zeroes=True)
    assert replies(data) == [(3, 2, bytes(4)), (3, 1, b"")]
    assert [kind for _, kind, _ in replies(wire.answer(3, b"x", size=SIZE, no_zeroes=True)[0])] == [0x80000003]


def test_abort_is_acknowledged_and_ends() -> None:
    data, following = wire.answer(2, b"", size=SIZE, no_zeroes=True)
    assert (replies(data), following) == ([(2, 1, b"")], wire.Next.END)


@pytest.mark.parametrize("code", [0, 4, 5, 8, 9, 10, 1 << 31])
def test_other_options_are_unsupported(code: int) -> None:
    data, following = wire.answer(code, b"", size=SIZE, no_zeroes=True)
    assert (replies(data), following) == ([(code, 0x80000001, b"")], wire.Next.OPTION)


def test_an_option_needs_its_magic_and_a_modest_length() -> None:
    assert wire.parse_option(b"IHAVEOPT" + bytes(3) + b"\7" + bytes(3) + b"\6") == (7, 6)
    for bad in (b"IHAVEOPX" + bytes(8), b"IHAVEOPT" + bytes(4) + b"\xff" * 4):
        with pytest.raises(wire.Garbled):
            wire.parse_option(bad)


@given(code=st.integers(0, 10), data=st.binary(max_size=40))
def test_every_option_is_answered_in_whole_replies(code: int, data: bytes) -> None:
    try:
        answered, following = wire.answer(code, data, size=SIZE, no_zeroes=True)
    except wire.Garbled:
        assert code == 1
        return
    if code == 1:
        assert len(answered) == 10
        return
    kinds = [kind for _, kind, _ in replies(answered)]
    assert kinds
    assert (following is wire.Next.TRANSMISSION) == (code == 7 and kinds[-1] == 1)


def request(command: int, offset: int, length: int) -> bytes:
    return wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, command, 77, offset, length)


@pytest.mark.parametrize(
    ("command", "offset", "length", "error"),
    [
        (0, 0, 1, 0),
        (0, SIZE - 512, 512, 0),
        (0, SIZE - 512, 513, 22),
        (0, SIZE, 1, 22),
        (0, (1 << 64) - 1, 1, 22),
        (0, 0, 0, 22),
        (0, 0, 32 << 20, 0),
        (0, 0, (32 << 20) + 1, 22),
        (1, 0, 512, 1),
        (3, 0, 0, 0),
        (4, 0, 512, 1),
        (6, 0, 512, 1),
        (7, 0, 512, 1),
        (999, 0, 0, 1),
    ],
)
def test_requests_are_judged(command: int, offset: int, length: int, error: int) -> None:
    parsed = wire.parse_request(request(command, offset, length))
    assert parsed == wire.Request(0, command, 77, offset, length)
    assert wire.judge(parsed, SIZE) == error


def test_a_request_needs_its_magic_and_a_write_a_modest_length() -> None:
    for bad in (bytes(28), request(1, 0, (32 << 20) + 1)):
        with pytest.raises(wire.Garbled):
            wire.parse_request(bad)


def test_a_simple_reply_is_16_bytes() -> None:
    assert wire.reply(77, 5) == bytes.fromhex("67446698 00000005 000000000000004d")
