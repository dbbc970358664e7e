"""Servers that break off, lie, stall and change their minds: a named error or the right disk, never a wrong one."""

import functools
import hashlib
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from builders import content, images
from command import Outcome, importing
from fakes import behaviours as bad
from fakes.badhttp import BadServer, Behaviour
from fakes.certificates import Authority
from fakes.webserver import Nginx, free_ports
from tools import tree

from importer.api.failure import CATALOGUE

HASTE = {"SLIPSTREAM_STALL_SECONDS": "1", "SLIPSTREAM_GIVE_UP_SECONDS": "4"}
RAW = content.seeded(bad.BIG + 12345 * 512, 11)
OTHER = content.seeded(len(RAW), 12)
TIRED = ("stalled", "overloaded", "protocol", "unreachable")
"""How an import may end whose server brings no more bytes."""


@functools.cache
def qcow2(seed: int = 11) -> bytes:
    """Return a qcow2 image of RAW (or its like) followed by 8 MiB of nothing."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.write_bytes(content.seeded(len(RAW), seed) + bytes(8 << 20))
        return images.convert(raw, images.KINDS["qcow2"], Path(folder) / "qcow2").read_bytes()


def ends(outcome: Outcome, landing: Path, *codes: str) -> None:
    """Fail unless the import ended with one of these codes, that code's exit status, and nothing but what may be gone on with."""
    assert outcome.code in codes, f"expected {codes}\n{outcome.said}"
    entry = CATALOGUE[outcome.code or ""]
    outcome.failed(entry.exit, *codes)
    kept = {".disk.img.slipstream-partial", ".disk.img.slipstream-partial.journal"} if entry.retryable else set()
    assert set(tree(landing)) in (set(), kept)
    assert ("what was imported is kept" in outcome.err) == bool(tree(landing)), outcome.said
    assert not outcome.receipt


def lands(outcome: Outcome, landing: Path, disk: bytes = RAW) -> None:
    """Fail unless the disk holds these bytes, followed by zeroes only."""
    outcome.succeeded()
    assert tree(landing) == ["disk.img"]
    found = (landing / "disk.img").read_bytes()
    assert found[: len(disk)] == disk, "a wrong disk"
    assert not found[len(disk) :].strip(b"\0"), "a wrong disk"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A behaviour over an object, and the codes it may end with; none: the disk must be right."""

    name: str
    behave: Callable[[bytes], Behaviour]
    codes: tuple[str, ...] = ()
    only: str = ""
    """raw or qcow2, where the other could not tell, or takes the same way (all that ends at the probe)."""


MID = 3_000_000
CASES = (
    Case(name="serves ranges", behave=bad.honest),
    Case(name="refuses HEAD", behave=bad.no_head, only="raw"),
    Case(name="cuts the first bodies", behave=lambda data: bad.truncating(data, 300_000, 3)),
    Case(name="cuts every body", behave=lambda data: bad.truncating(data, 300_000)),
    Case(name="sends no body at all", behave=lambda data: bad.truncating(data, 0), codes=TIRED, only="raw"),
    Case(
        name="announces more than it has",
        behave=lambda data: bad.lying_total(data, len(data) + 100_000),
        codes=(*TIRED, "truncated"),
    ),
    Case(
        name="announces less than it has",
        behave=lambda data: bad.lying_total(data, MID),
        codes=("truncated", "corrupt"),
        only="qcow2",
    ),
    Case(name="ignores Range", behave=bad.ignoring_range),
    Case(name="ignores Range later", behave=lambda data: bad.ignoring_range(data, 2), only="raw"),
    Case(name="ignores Range from the middle", behave=lambda data: bad.ignoring_range(data, 4), only="raw"),
    Case(
        name="ignores Range later",
        behave=lambda data: bad.ignoring_range(data, 2),
        codes=("protocol", "right disk"),
        only="qcow2",
    ),
    Case(name="tells no length, in chunks", behave=bad.chunked),
    Case(name="tells no length, in chunks, and breaks off", behave=lambda data: bad.chunked(data, MID), codes=TIRED),
    Case(name="tells no length, until closed", behave=bad.until_closed),
    Case(name="encodes answers to ranges", behave=lambda data: bad.encoding(data, always=False)),
    Case(name="encodes every answer", behave=lambda data: bad.encoding(data, always=True), codes=("protocol",), only="raw"),
    Case(
        name="sends another range",
        behave=lambda data: bad.shifted(data, lambda start, end: f"bytes {start + 512}-{end + 511}/{len(data) + 1024}"),
        codes=("protocol", "source-changed"),
    ),
    Case(
        name="sends another total",
        behave=lambda data: bad.shifted(data, lambda start, end: f"bytes {start}-{end - 1}/{len(data) + 1}"),
        codes=("source-changed", "protocol"),
    ),
    Case(
        name="sends a Content-Range of nothing",
        behave=lambda data: bad.shifted(data, lambda start, end: f"bytes */{len(data)}"),
        codes=("protocol",),
    ),
    Case(
        name="sends a Content-Range of rubbish",
        behave=lambda data: bad.shifted(data, lambda start, end: "bytes all-of/it", first=0),
        codes=("protocol",),
        only="raw",
    ),
    Case(name="stalls once", behave=lambda data: bad.stalling(data, 200_000, first=1, times=1)),
    Case(name="stalls a few times", behave=lambda data: bad.stalling(data, 200_000, first=1, times=4)),
    Case(name="stalls for ever", behave=lambda data: bad.stalling(data, 0, first=2), codes=("stalled",)),
    Case(name="drips a byte at a time", behave=lambda data: bad.dripping(data, first=2), codes=("stalled",)),
    Case(name="resets some connections", behave=lambda data: bad.resetting(data, 3)),
    Case(name="resets every later connection", behave=lambda data: bad.resetting(data, None, first=2, after=0), codes=TIRED),
    Case(name="resets every connection", behave=lambda data: bad.resetting(data, None, after=0), codes=TIRED, only="raw"),
    Case(name="takes one at a time, 503 for the rest", behave=lambda data: bad.crowded(data, 1, reset=False)),
    Case(name="takes one at a time, resets the rest", behave=lambda data: bad.crowded(data, 1, reset=True)),
    Case(name="is busy twice (429)", behave=lambda data: bad.refusing(data, 429, 2, ("Retry-After", 1)), only="raw"),
    Case(name="is busy twice in the middle (503)", behave=lambda data: bad.refusing(data, 503, 2, ("Retry-After", 1), first=2)),
    Case(name="is busy for ever (429)", behave=lambda data: bad.refusing(data, 429, None), codes=("overloaded",), only="raw"),
    Case(
        name="is busy for ever from the middle (503)",
        behave=lambda data: bad.refusing(data, 503, None, first=2),
        codes=("overloaded",),
    ),
    Case(
        name="is busy for an hour",
        behave=lambda data: bad.refusing(data, 503, None, ("Retry-After", 3600)),
        codes=("overloaded",),
        only="raw",
    ),
    Case(name="hiccups (500)", behave=lambda data: bad.refusing(data, 500, 2, first=1)),
    Case(name="is broken (500)", behave=lambda data: bad.refusing(data, 500, None), codes=("http-status",), only="raw"),
    Case(name="has lost it (404)", behave=lambda data: bad.refusing(data, 404, None), codes=("not-found",), only="raw"),
    Case(name="loses it in the middle (404)", behave=lambda data: bad.refusing(data, 404, None, first=2), codes=("not-found",)),
    Case(name="denies (403)", behave=lambda data: bad.refusing(data, 403, None), codes=("denied",), only="raw"),
    Case(name="wants credentials (401)", behave=lambda data: bad.refusing(data, 401, None), codes=("denied",), only="raw"),
    Case(name="is a teapot (418)", behave=lambda data: bad.refusing(data, 418, None), codes=("http-status",), only="raw"),
    Case(
        name="shows a page",
        behave=lambda _: bad.page(b"<!DOCTYPE html><html><p>please log in</p></html>"),
        codes=("not-a-disk",),
        only="raw",
    ),
    Case(name="shows nothing", behave=lambda _: bad.page(b""), codes=("empty",), only="raw"),
    Case(name="speaks another protocol", behave=lambda _: bad.gibberish(), codes=("protocol",), only="raw"),
    Case(name="has a weak ETag", behave=lambda data: bad.honest(data, 'W/"weak"'), only="raw"),
    Case(name="has no ETag", behave=lambda data: bad.honest(data, ""), only="raw"),
    Case(
        name="sends more after each body",
        behave=lambda data: bad.talkative(data, b"HTTP/1.1 200 OK\r\n\r\n"),
        codes=("right disk", "protocol"),
    ),
    Case(name="sends longer bodies than ranges", behave=lambda data: bad.oversized(data, b"surplus"), codes=("protocol",)),
    Case(name="redirects", behave=lambda data: bad.redirecting(lambda _: "/final/disk.img", bad.honest(data))),
    Case(
        name="redirects for ever",
        behave=lambda data: bad.redirecting(lambda _: "/again", bad.honest(data)),
        codes=("redirects",),
        only="raw",
    ),
    Case(
        name="redirects ever deeper",
        behave=lambda data: bad.redirecting(lambda asked: f"{asked.path}/x", bad.honest(data)),
        codes=("redirects",),
        only="raw",
    ),
    Case(
        name="redirects to nothing",
        behave=lambda data: bad.redirecting(lambda _: "", bad.honest(data)),
        codes=("redirects", "protocol"),
        only="raw",
    ),
    Case(
        name="redirects to a file",
        behave=lambda data: bad.redirecting(lambda _: "file:///etc/passwd", bad.honest(data)),
        codes=("redirects",),
        only="raw",
    ),
    Case(
        name="redirects each request to another mirror",
        behave=lambda data: bad.redirecting(lambda asked: f"/final/mirror-{asked.number}", bad.honest(data)),
    ),
    Case(name="signs URLs that soon expire", behave=lambda data: bad.presigned(data, 6)),
)


PAIRS = [(case, form) for case in CASES for form in ("raw", "qcow2") if case.only in ("", form)]


@pytest.mark.parametrize(("case", "form"), PAIRS, ids=[f"{case.name}-{form}".replace(" ", "-") for case, form in PAIRS])
def test_a_server_that(case: Case, form: str, landing: Path) -> None:
    with BadServer(case.behave(RAW if form == "raw" else qcow2())) as server:
        outcome = importing(server.url(), landing / "disk.img", env=HASTE, timeout=30)
    if outcome.exit == 0:
        assert not case.codes or "right disk" in case.codes, f"expected {case.codes}\n{outcome.said}"
        lands(outcome, landing)
    else:
        assert case.codes, outcome.said
        ends(outcome, landing, *case.codes)
    assert server.methods() <= {"GET"}, "presigned URLs refuse everything but GET"


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_a_parallel_import_is_no_more_requests_than_it_needs(form: str, landing: Path) -> None:
    data = RAW if form == "raw" else qcow2()
    with BadServer(bad.honest(data)) as server:
        lands(importing(server.url(), landing), landing)
    assert 2 <= server.connections <= 10
    assert len(server.requests) <= 8 + len(data) // (1 << 20)
    assert all(request.headers["accept-encoding"] == "identity" for request in server.requests)


def test_a_weak_etag_never_goes_into_if_range(landing: Path) -> None:
    with BadServer(bad.honest(RAW, 'W/"weak"')) as server:
        lands(importing(server.url(), landing), landing)
    assert not [one for one in server.requests if one.headers.get("if-range", "").startswith("W/") or "if-match" in one.headers]


CHANGES: dict[str, Callable[[bytes, bytes], Behaviour]] = {
    "with-another-etag": lambda old, new: bad.changing(old, new, at=3, etags=('"a"', '"b"')),
    "with-another-etag-and-no-conditions": lambda old, new: bad.changing(old, new, at=3, etags=('"a"', '"b"'), if_range=False),
    "with-another-length": lambda old, new: bad.changing(old, new + bytes(512), at=3, etags=("", ""), if_range=False),
    "with-the-same-etag": lambda old, new: bad.changing(old, new, at=3, etags=('"a"', '"a"'), if_range=False),
    "without-any-etag": lambda old, new: bad.changing(old, new, at=3, etags=("", ""), if_range=False),
    "at-the-second-request": lambda old, new: bad.changing(old, new, at=1, etags=("", ""), if_range=False),
}


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("change", CHANGES)
def test_an_object_that_changes_mid_way_is_an_error_and_never_a_mix(change: str, form: str, landing: Path) -> None:
    old, new = (RAW, OTHER) if form == "raw" else (qcow2(), qcow2(12))
    with BadServer(CHANGES[change](old, new)) as server:
        outcome = importing(server.url(), landing, env=HASTE)
    if outcome.exit == 0 and form == "qcow2" and change not in ("with-another-etag", "with-another-etag-and-no-conditions"):
        found = (landing / "disk.img").read_bytes()
        assert found[: len(RAW)] in (RAW, OTHER), "a mix of two versions"
    else:
        ends(outcome, landing, "source-changed")


def test_a_change_that_no_validator_tells_is_found_by_its_checksum(landing: Path) -> None:
    same_head = RAW[: 2 << 20] + OTHER[2 << 20 :]
    with BadServer(bad.changing(RAW, same_head, at=3, etags=('"a"', '"a"'))) as server:
        outcome = importing(server.url(), landing, "--checksum", f"sha256:{hashlib.sha256(RAW).hexdigest()}", env=HASTE)
    ends(outcome, landing, "checksum-mismatch", "source-changed")


@pytest.mark.parametrize("rest", ["backed", "rubbish"])
def test_what_was_judged_is_not_read_a_second_time(rest: str, landing: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary" * 100_000)
    data = qcow2()
    evil = _backed(data, str(canary)) if rest == "backed" else bytes(byte ^ 0x5A for byte in data)
    with BadServer(bad.forgetful(data, evil)) as server:
        outcome = importing(server.url(), landing, env=HASTE)
    if outcome.exit == 0:
        lands(outcome, landing)
    else:
        ends(outcome, landing, "source-changed")


def test_another_header_on_the_second_read_never_reaches_qemu_img(landing: Path, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_bytes(b"canary" * 100_000)
    data = qcow2()
    behave = bad.changing(data, _backed(data, str(canary)), at=1, etags=('"a"', '"a"'))
    with BadServer(behave) as server:
        outcome = importing(server.url(), landing, env=HASTE)
    if outcome.exit == 0:
        lands(outcome, landing)
    else:
        ends(outcome, landing, "source-changed")


def _backed(image: bytes, name: str) -> bytes:
    """Return a qcow2 image with the name of a backing file at the end of its first cluster."""
    at = 4096
    return (
        image[:8] + at.to_bytes(8, "big") + len(name).to_bytes(4, "big") + image[20:at] + name.encode() + image[at + len(name) :]
    )


def test_mirrors_that_differ_are_not_mixed(landing: Path) -> None:
    versions = (RAW, OTHER)

    def where(request: object) -> str:
        return f"/final/{getattr(request, 'number', 0) % 2}"

    async def serve(request: bad.Request, wire: bad.Wire) -> None:
        which = int(request.path[-1])
        await bad.send_part(wire, request, versions[which], etag=f'"{which}"')

    with BadServer(bad.redirecting(where, serve)) as server:
        lands(importing(server.url(), landing), landing)


def test_a_signed_url_that_expired_is_found_again_and_its_secret_is_told_nobody(landing: Path) -> None:
    with BadServer(bad.presigned(RAW, 3)) as server:
        outcome = importing(server.url("disk.img?token=entrance"), landing, "--connections", "1", env=HASTE)
    lands(outcome, landing)
    assert len({one.path for one in server.requests if one.path.startswith("/signed")}) > 1
    told = outcome.out + outcome.err + str(outcome.receipt)
    assert "secret-" not in told
    assert "entrance" not in told


def test_credentials_do_not_follow_a_redirect_to_another_origin(landing: Path, tmp_path: Path) -> None:
    auth, headers = tmp_path / "auth", tmp_path / "headers"
    auth.write_text("user:hunter2\n")
    headers.write_text("X-Api-Key: hunter3\n")
    with (
        BadServer(bad.honest(RAW)) as second,
        BadServer(bad.redirecting(lambda _: second.url("final"), bad.honest(RAW))) as first,
    ):
        outcome = importing(
            first.url(), landing, "--auth-file", auth, "--header-file", headers, "--header", "X-Project: images", env=HASTE
        )
        lands(outcome, landing)
        assert first.requests[0].headers["authorization"].startswith("Basic ")
        assert first.requests[0].headers["x-api-key"] == "hunter3"
        assert first.requests[0].headers["x-project"] == "images"
        assert second.requests
        assert not [one for one in second.requests if {"authorization", "x-api-key", "x-project", "cookie"} & one.headers.keys()]
    assert not re.search("hunter[23]", outcome.out + outcome.err + str(outcome.receipt))


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "[::ffff:169.254.169.254]", "2852039166", "0xa9.254.43518", "[fe80::1]", "100.100.100.200", "0.0.0.0"],
)
def test_a_redirect_to_the_metadata_service_is_refused(address: str, landing: Path) -> None:
    with BadServer(bad.redirecting(lambda _: f"http://{address}/latest/meta-data/", bad.honest(RAW))) as server:
        outcome = importing(server.url(), landing, env=HASTE, timeout=20)
    ends(outcome, landing, "address-refused")


@pytest.mark.parametrize("address", ["169.254.169.254", "[::ffff:169.254.169.254]"])
def test_the_metadata_service_is_no_source(address: str, landing: Path) -> None:
    ends(importing(f"http://{address}/disk.img", landing, env=HASTE, timeout=20), landing, "address-refused")


def test_a_body_without_end_stops_at_the_largest_disk_allowed(landing: Path) -> None:
    with BadServer(bad.endless()) as server:
        outcome = importing(server.url(), landing, "--max-size", "64Mi", env=HASTE)
    ends(outcome, landing, "too-large")


def test_nobody_listens(landing: Path) -> None:
    (port,) = free_ports(1)
    ends(importing(f"http://127.0.0.1:{port}/disk.img", landing, env=HASTE), landing, "unreachable")


def test_no_such_host(landing: Path) -> None:
    ends(importing("http://no-such-host.invalid/disk.img", landing, env=HASTE), landing, "unreachable")


@pytest.mark.long
@pytest.mark.timeout(700)
@pytest.mark.parametrize("behave", [bad.stalling(RAW, 0, first=0), bad.dripping(RAW, first=0)], ids=["silent", "dripping"])
def test_a_server_that_never_sends_a_head(behave: Behaviour, landing: Path) -> None:
    with BadServer(behave) as server:
        outcome = importing(server.url(), landing, env=HASTE, timeout=240)  # all tries of a probe together: three minutes
    ends(outcome, landing, "stalled")


def test_a_good_certificate_of_a_named_authority(nginx: Nginx, disk: Path, authority: Authority, landing: Path) -> None:
    importing(nginx.url(disk.name, "good"), landing, "--ca-file", authority.ca_file).succeeded()
    assert (landing / "disk.img").read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("server", ["good", "expired", "wrong-host", "self-signed"])
def test_a_certificate_without_trust_is_refused(
    server: str, nginx: Nginx, disk: Path, authority: Authority, landing: Path
) -> None:
    trust = () if server == "good" else ("--ca-file", authority.ca_file)
    outcome = importing(nginx.url(disk.name, server), landing, *trust, env=HASTE)
    ends(outcome, landing, "tls")
    assert "--ca-file" in outcome.err or "certificate" in outcome.err


@pytest.mark.parametrize("server", ["expired", "wrong-host", "self-signed"])
def test_insecure_takes_any_certificate(server: str, nginx: Nginx, disk: Path, landing: Path) -> None:
    importing(nginx.url(disk.name, server), landing, "--insecure").succeeded()
    assert (landing / "disk.img").read_bytes() == disk.read_bytes()
