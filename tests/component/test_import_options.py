"""Checksums, secrets, receipts, JSON, inspection: what a person asks for on the command line, and is told."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import content, images, proof
from builders.images import KINDS, MIB, USED
from command import Running, importing, slipstream
from fakes import behaviours as bad
from fakes.badhttp import BadServer
from fakes.webserver import Nginx
from tools import tree

Get = Callable[..., Path]
DATA = content.seeded(10 * MIB, 31)
SECRET = "hunter2-is-a-secret"
WAYS = (("raw", None), ("raw", "gzip"), ("raw", "xz"), ("raw", "zstd"), ("qcow2", None), ("qcow2-zlib", None), ("qcow2", "gzip"))
"""An image and a wrapper for each way through the pipeline."""
ALGORITHMS = ("sha256", "sha512", "sha1", "md5")


def hex_of(path: Path, algorithm: str) -> str:
    """Return what the coreutils say."""
    return subprocess.run([f"{algorithm}sum", path], capture_output=True, text=True, check=True, timeout=30).stdout.split()[0]


@pytest.mark.parametrize(
    ("algorithm", "name"), [*((one, "raw") for one in ALGORITHMS), ("sha256", "qcow2"), ("sha512", "qcow2-zlib")]
)
def test_a_right_checksum_is_confirmed(algorithm: str, name: str, nginx: Nginx, image: Get, landing: Path) -> None:
    served = image(name)
    promise = hex_of(served, algorithm)
    receipt = importing(nginx.url(served.name), landing, "--checksum", f"{algorithm}:{promise}").succeeded().receipt
    assert receipt["digests"] == {algorithm: promise}
    assert any(algorithm in one for one in receipt["verified"])
    proof.identical(landing / "disk.img", image("raw"), KINDS["raw"])


@pytest.mark.parametrize(("name", "wrapper"), [*WAYS, ("vmdk-stream", None)])
def test_a_wrong_checksum_publishes_nothing(name: str, wrapper: str | None, nginx: Nginx, image: Get, landing: Path) -> None:
    outcome = importing(nginx.url(image(name, wrapper).name), landing, "--checksum", f"sha256:{'0' * 64}")
    outcome.failed(65, "checksum-mismatch")
    assert tree(landing) == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_wrong_checksum_of_each_algorithm_is_seen(algorithm: str, nginx: Nginx, image: Get, landing: Path) -> None:
    served = image("qcow2")
    digits = hex_of(served, algorithm)
    wrong = digits[:-1] + ("0" if digits[-1] != "0" else "1")
    importing(nginx.url(served.name), landing, "--checksum", f"{algorithm}:{wrong}").failed(65, "checksum-mismatch")
    assert tree(landing) == []


@pytest.mark.parametrize("text", ["sha256:abc", "sha3:00", "00", "md5:" + "g" * 32, ""])
def test_a_checksum_that_is_none_is_a_usage_error(text: str, landing: Path) -> None:
    importing("http://127.0.0.1:1/x", landing, "--checksum", text).failed(64, "usage")


@pytest.mark.parametrize("line", ["{hex}  {name}\n", "{hex} *{name}\n", "SHA256 ({name}) = {hex}\n"])
def test_a_checksum_file_is_found_by_the_images_name(line: str, nginx: Nginx, image: Get, landing: Path) -> None:
    served = image("qcow2")
    text = f"{'1' * 64}  other.img\n" + line.format(hex=hex_of(served, "sha256"), name=served.name)
    (nginx.folder / "SHA256SUMS").write_text(text)
    receipt = importing(nginx.url(served.name), landing, "--checksum-url", nginx.url("SHA256SUMS")).succeeded().receipt
    assert receipt["verified"]
    assert receipt["digests"]["sha256"] == hex_of(served, "sha256")


def test_a_checksum_file_that_promises_otherwise_or_nothing(nginx: Nginx, image: Get, landing: Path) -> None:
    served, sums = image("qcow2"), nginx.folder / "SHA256SUMS.other"
    sums.write_text(f"{'1' * 64}  {served.name}\n")
    importing(nginx.url(served.name), landing, "--checksum-url", nginx.url(sums.name)).failed(65, "checksum-mismatch")
    sums.write_text(f"{'1' * 64}  another.img\n")
    importing(nginx.url(served.name), landing, "--checksum-url", nginx.url(sums.name)).failed(65, "checksum-missing")
    importing(nginx.url(served.name), landing, "--checksum-url", nginx.url("no-such-sums")).failed(69, "not-found")
    assert tree(landing) == []


@pytest.mark.parametrize(("name", "wrapper"), [*WAYS, ("vhd-fixed", None), ("vhdx", "zstd")])
def test_the_digest_in_the_receipt_is_that_of_the_bytes_served(
    name: str, wrapper: str | None, nginx: Nginx, image: Get, landing: Path
) -> None:
    served = image(name, wrapper)
    receipt = importing(nginx.url(served.name), landing, "--digest").succeeded().receipt
    assert receipt["digests"] == {"sha256": hex_of(served, "sha256")}
    assert receipt["verified"] == []


def test_no_digest_is_computed_unasked(nginx: Nginx, image: Get, landing: Path) -> None:
    assert importing(nginx.url(image("raw").name), landing).succeeded().receipt["digests"] == {}


def test_a_local_file_can_be_checked_too(image: Get, landing: Path) -> None:
    path = image("qcow2")
    importing(path, landing, "--checksum", f"sha256:{hex_of(path, 'sha256')}").succeeded()
    proof.identical(landing / "disk.img", image("raw"), KINDS["raw"])


# -- secrets


@pytest.mark.parametrize(
    "words",
    [
        ("--header", f"Authorization: Bearer {SECRET}"),
        ("--header", f"cookie:session={SECRET}"),
        ("--header", f"Proxy-Authorization: Basic {SECRET}"),
        ("--proxy", f"http://user:{SECRET}@127.0.0.1:3128"),
        ("--checksum-url", f"http://user:{SECRET}@127.0.0.1:1/SUMS"),
    ],
    ids=["authorization", "cookie", "proxy-authorization", "proxy", "checksum-url"],
)
def test_a_secret_in_argv_is_refused_and_not_repeated(words: tuple[str, str], landing: Path) -> None:
    outcome = importing("http://127.0.0.1:1/x", landing, *words).failed(64, "secret-in-argv")
    assert SECRET not in outcome.out + outcome.err


def test_userinfo_in_a_url_is_refused_and_not_repeated(landing: Path) -> None:
    outcome = importing(f"http://user:{SECRET}@127.0.0.1:1/x", landing).failed(64, "secret-in-argv")
    assert SECRET not in outcome.out + outcome.err


def test_a_url_in_a_file_may_hold_a_signature_that_nobody_learns(landing: Path, tmp_path: Path) -> None:
    file, argv = tmp_path / "url", []
    with BadServer(bad.stalling(DATA, 100_000, first=2, times=1)) as server:
        file.write_text(f"# where the image is\n{server.url(f'disk.img?X-Amz-Signature={SECRET}')}\n")
        env = {"SLIPSTREAM_STALL_SECONDS": "1"}
        with Running("import", f"@{file}", landing, "--receipt", tmp_path / "receipt", "--json", env=env) as running:
            while running.process.poll() is None and len(server.requests) < 3:
                argv.append(Path(f"/proc/{running.pid}/cmdline").read_bytes())
            outcome = running.finish(40).succeeded()
    assert argv
    assert SECRET.encode() not in b"".join(argv)
    assert SECRET not in outcome.out + outcome.err + (tmp_path / "receipt").read_text()
    assert all(SECRET in request.path for request in server.requests)
    assert (landing / "disk.img").read_bytes() == DATA


@pytest.mark.parametrize("status", [401, 403, 404, 500, 418])
def test_an_error_does_not_repeat_what_the_server_echoes(status: int, landing: Path, tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    auth.write_text(f"Bearer {SECRET}\n")

    async def echo(request: bad.Request, wire: bad.Wire) -> None:
        text = f"no {request.path} for {request.headers.get('authorization')}".encode()
        await wire.answer(status, text, ("Content-Type", "text/plain"), ("X-Echo", SECRET))

    with BadServer(echo) as server:
        outcome = importing(server.url(f"x?sig={SECRET}"), landing, "--auth-file", auth, "--json")
    assert outcome.exit in (69, 77)
    assert SECRET not in outcome.out + outcome.err
    assert tree(landing) == []


def test_credentials_come_from_files(landing: Path, tmp_path: Path) -> None:
    auth, headers = tmp_path / "auth", tmp_path / "headers"
    headers.write_text(f"X-Api-Key: {SECRET}\n\n# a comment\nX-Tenant: blue\n")
    with BadServer(bad.honest(DATA)) as server:
        for text, expected in (("user:pass word", "Basic dXNlcjpwYXNzIHdvcmQ="), (f"Bearer {SECRET}", f"Bearer {SECRET}")):
            auth.write_text(text + "\n")
            outcome = importing(
                server.url(), landing, "--force", "--auth-file", auth, "--header-file", headers, "--header", "X-Plain: yes"
            ).succeeded()
            last = server.requests[-1].headers
            assert last["authorization"] == expected
            assert (last["x-api-key"], last["x-tenant"], last["x-plain"]) == (SECRET, "blue", "yes")
            assert SECRET not in outcome.out + outcome.err + json.dumps(outcome.receipt)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "--proxy"])
def test_a_proxy_is_used_from_option_and_environment(name: str, landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as proxy:
        words, env = ((), {name: proxy.url("")}) if name != "--proxy" else (("--proxy", proxy.url("")), {})
        importing("http://images.example/disk.img", landing, *words, env=env).succeeded()
    assert proxy.requests[0].path == "http://images.example/disk.img"
    assert (landing / "disk.img").read_bytes() == DATA


def test_no_proxy_names_hosts_that_need_none(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server, BadServer(bad.honest(b"wrong")) as proxy:
        importing(server.url(), landing, env={"http_proxy": proxy.url(""), "no_proxy": "127.0.0.1"}).succeeded()
    assert not proxy.requests


@pytest.mark.parametrize("count", [1, 3])
def test_connections_are_limited(count: int, landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as server:
        receipt = importing(server.url(), landing, "--connections", str(count)).succeeded().receipt
    assert receipt["connections"] <= count
    assert server.connections <= count + 1


# -- what is told


FIELDS = {
    "source", "validators", "digests", "verified", "target", "format", "wrapper", "route", "virtual_size", "allocated_size",
    "source_length", "bytes_fetched", "bytes_decoded", "bytes_written", "bytes_zero", "bytes_spilled", "seconds", "stages",
    "limiting_stage", "retries", "connections", "connections_reason", "peak_rss", "sandbox", "versions", "notes",
}  # fmt: skip


@pytest.mark.parametrize("name", ["raw", "qcow2-zlib", "vhdx", "vhd-dynamic"])
def test_a_receipt_tells_everything(name: str, nginx: Nginx, image: Get, landing: Path) -> None:
    served = image(name)
    receipt = importing(nginx.url(served.name), landing).succeeded().receipt
    assert receipt.keys() >= FIELDS
    disk = landing / "disk.img"
    assert receipt["virtual_size"] == disk.stat().st_size
    assert abs(receipt["allocated_size"] - proof.allocated(disk)) <= MIB
    assert receipt["bytes_written"] + receipt["bytes_zero"] == receipt["virtual_size"]
    assert receipt["validators"]["etag"]
    assert receipt["stages"]
    assert receipt["limiting_stage"] in {stage["name"] for stage in receipt["stages"]}
    assert ("qemu-img" in receipt["versions"]) == (name == "vhd-dynamic")
    assert receipt["sandbox"]
    assert 0 < receipt["seconds"] < 60
    assert 10 * MIB < receipt["peak_rss"] < 160 * MIB


def test_json_is_a_line_an_object(nginx: Nginx, image: Get, landing: Path) -> None:
    outcome = slipstream("import", nginx.url(image("qcow2").name), landing, "--json")
    assert outcome.exit == 0, outcome.said
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert len(lines) >= 2
    assert all(isinstance(line, dict) for line in lines)
    assert any("peak_rss" in json.dumps(line) for line in lines), "the receipt"
    assert any("phase" in json.dumps(line) for line in lines), "progress"


def test_json_tells_a_failure_too(nginx: Nginx, landing: Path) -> None:
    outcome = slipstream("import", nginx.url("no-such-image"), landing, "--json")
    assert outcome.exit == 69
    last = json.loads(outcome.out.splitlines()[-1])
    text = json.dumps(last)
    assert "not-found" in text
    assert "hint" in text
    assert "retryable" in text


def test_quiet_says_nothing_when_all_is_well(nginx: Nginx, image: Get, landing: Path) -> None:
    outcome = slipstream("import", nginx.url(image("qcow2").name), landing, "--quiet")
    assert (outcome.exit, outcome.out, outcome.err) == (0, "", "")


def test_without_a_terminal_there_are_no_escape_codes(nginx: Nginx, image: Get, landing: Path) -> None:
    outcome = slipstream("import", nginx.url(image("qcow2").name), landing)
    assert outcome.exit == 0
    assert "\x1b" not in outcome.out + outcome.err
    assert "\r" not in outcome.out + outcome.err


def test_a_receipt_on_standard_output(nginx: Nginx, image: Get, landing: Path) -> None:
    outcome = slipstream("import", nginx.url(image("qcow2").name), landing, "--quiet", "--receipt", "-")
    assert json.loads(outcome.out)["format"] == "qcow2"


@pytest.mark.parametrize("words", [(), ("import",), ("import", "x"), ("import", "a", "b", "--no-such"), ("fly",)])
def test_a_command_that_means_nothing_is_usage(words: tuple[str, ...]) -> None:
    outcome = slipstream(*words)
    assert outcome.exit == 64, outcome.said
    assert "Traceback" not in outcome.err


def test_a_scheme_nobody_knows_is_usage(landing: Path) -> None:
    importing("gopher://127.0.0.1/disk.img", landing).failed(64, "usage")


def test_format_overrides_recognition(nginx: Nginx, landing: Path) -> None:
    page = nginx.folder / "page.html"
    page.write_bytes((b"<!DOCTYPE html>\n<html><body>" + b"<p>please log in</p>\n" * 40)[:512])
    importing(nginx.url(page.name), landing).failed(65, "not-a-disk")
    importing(nginx.url(page.name), landing, "--format", "raw").succeeded()
    assert (landing / "disk.img").read_bytes() == page.read_bytes()


def test_a_qcow2_may_be_taken_for_raw_when_told_so(nginx: Nginx, image: Get, landing: Path) -> None:
    served = image("qcow2")
    importing(nginx.url(served.name), landing, "--format", "raw").succeeded()
    assert (landing / "disk.img").read_bytes() == served.read_bytes()


def test_decoder_memory_refuses_a_large_window_before_decoding(nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.write_bytes(content.seeded(2 * MIB))
    for suffix, words in (
        ("zst", ["zstd", "-1", "--long=27", "-q", "-c"]),
        ("xz", ["xz", "-0", "--lzma2=preset=0,dict=64MiB", "-c"]),
    ):
        served = nginx.folder / f"wide.{suffix}"
        served.write_bytes(subprocess.run(words, input=raw.read_bytes(), capture_output=True, check=True, timeout=60).stdout)
        importing(nginx.url(served.name), landing, "--decoder-memory", "16Mi").failed(65, "decoder-memory")
        assert tree(landing) == []


# -- inspection


def _shown(text: str) -> dict[str, object]:
    return json.loads(text)


@pytest.mark.parametrize("name", [*KINDS, *USED])
def test_inspection_reads_little_and_tells_the_format(name: str, image: Get) -> None:
    path = image(name)
    with BadServer(bad.honest(path.read_bytes())) as server:
        outcome = slipstream("inspect", server.url(), "--json")
    assert outcome.exit == 0, outcome.said
    told = _shown(outcome.out)
    kind = {**KINDS, **USED}[name]
    assert told["format"] == kind.named
    assert told["virtual_size"] == proof.virtual_size(path, kind)
    assert told["length"] == path.stat().st_size
    assert told["wrapper"] is None
    assert told["dangers"] in ([], ())
    assert len(server.requests) <= 8
    spans = [request.range for request in server.requests]
    assert all(spans), "every request names its range"
    assert sum(min(last, path.stat().st_size - 1) + 1 - first for first, last in filter(None, spans)) <= 4 * MIB
    assert told["requests"] == len(server.requests)
    assert server.methods() == {"GET"}


@pytest.mark.parametrize("wrapper", ["gzip", "xz", "zstd"])
def test_inspection_looks_into_a_wrapper_as_far_as_it_can(wrapper: str, nginx: Nginx, image: Get) -> None:
    path = image("qcow2", wrapper)
    outcome = slipstream("inspect", nginx.url(path.name), "--json")
    assert outcome.exit == 0, outcome.said
    told = _shown(outcome.out)
    assert told["wrapper"] == wrapper
    assert told["format"] == "qcow2"


def test_inspection_says_whether_it_fits_and_what_is_dangerous(nginx: Nginx, image: Get, landing: Path, tmp_path: Path) -> None:
    outcome = slipstream("inspect", nginx.url(image("qcow2").name), "--json", "--for", landing)
    assert _shown(outcome.out)["fits"] == "yes", outcome.said
    raw = tmp_path / "base"
    raw.write_bytes(bytes(MIB))
    backed = nginx.folder / "backed.qcow2"
    images.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", raw, "-F", "raw", backed])
    outcome = slipstream("inspect", nginx.url(backed.name), "--json")
    assert outcome.exit == 65, outcome.said
    assert "unsafe" in outcome.out
    assert tree(landing) == []


def test_inspection_for_a_person_is_text(nginx: Nginx, image: Get) -> None:
    outcome = slipstream("inspect", nginx.url(image("vmdk").name))
    assert outcome.exit == 0
    assert re.search("vmdk", outcome.out)
    assert "64" in outcome.out


def test_inspection_of_a_page_names_what_it_is() -> None:
    with BadServer(bad.page(b"<!DOCTYPE html><html></html>")) as server:
        outcome = slipstream("inspect", server.url())
    assert outcome.exit == 65, outcome.said
    assert "html" in (outcome.out + outcome.err).lower()


def test_the_environment_is_left_alone(nginx: Nginx, image: Get, landing: Path, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    importing(nginx.url(image("qcow2").name), landing, env={"TMPDIR": str(scratch), "HOME": str(scratch)}).succeeded()
    assert os.listdir(scratch) == []
