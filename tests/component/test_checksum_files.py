"""The file of --checksum-url is fetched as patiently as the image, and never more of it than such a file has."""

import hashlib
from pathlib import Path

import pytest
from builders import content
from command import Outcome, importing
from fakes import behaviours as bad
from fakes.badhttp import BadServer, Behaviour, HangUp, Request, Wire
from tools import tree

DATA = content.seeded(3 << 20, 31)
SUMS = b"".join(b"%064x  other-%d.img\n" % (number, number) for number in range(4000))
SUMS += f"{hashlib.sha256(DATA).hexdigest()}  disk.img\n".encode()
HASTE = {"SLIPSTREAM_STALL_SECONDS": "1", "SLIPSTREAM_GIVE_UP_SECONDS": "3"}


def cutting(data: bytes, times: int) -> Behaviour:
    """Serve a head that is enough, and nothing of what follows it the next `times` times."""

    async def behave(request: Request, wire: Wire) -> None:
        start, end = bad.span_of(request, len(data)) or (0, len(data))
        enough = 100_000 if request.number == 0 else 0 if request.number <= times else end - start
        await bad.send_part(wire, request, data, body=data[start : start + enough], length=end - start)
        if enough < end - start:
            raise HangUp

    return behave


def promised(sums: Behaviour, landing: Path) -> Outcome:
    """Import an image whose checksum another server promises."""
    with BadServer(bad.honest(DATA)) as images, BadServer(sums) as others:
        return importing(images.url(), landing, "--checksum-url", others.url("SHA256SUMS"), env=HASTE)


def test_a_checksum_file_that_breaks_off_is_asked_for_again(landing: Path) -> None:
    outcome = promised(cutting(SUMS, 3), landing).succeeded()
    assert outcome.receipt["verified"] == ["sha256 of --checksum-url"]


def test_a_checksum_file_that_never_comes_whole_is_no_fault_of_ours(landing: Path) -> None:
    promised(cutting(SUMS, 10**6), landing).failed(75, "stalled")
    assert tree(landing) == []


@pytest.mark.parametrize("sums", [bad.endless(), bad.honest(b"x\n" * (1 << 20))], ids=["endless", "two mebibytes"])
def test_what_is_too_large_for_a_checksum_file_is_not_read(sums: Behaviour, landing: Path) -> None:
    outcome = promised(sums, landing).failed(65, "checksum-missing")
    assert "too large" in outcome.err
    assert tree(landing) == []
