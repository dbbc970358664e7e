"""s3:// against a real S3 server: every way to the credentials, every answer that a person can meet, no secret anywhere."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from builders import content, proof
from builders.images import KINDS, MIB
from command import ROOT, Outcome, environment, importing, slipstream
from fakes.certificates import Authority
from fakes.seaweed import OWNER, PRIVATE, PUBLIC, STRANGER, Seaweed
from fakes.webserver import Nginx
from tools import tree

from importer.api.failure import Failure
from importer.api.request import Access, S3Access
from importer.sources.s3 import S3Source, Signer

Get = Callable[..., Path]
RAW = content.seeded(3 * MIB + 512, 21)
ODD_KEY = "a b/c+d?e#f%20é&=/x~(1).img"
NOWHERE = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
"""No credentials at all."""


def keys(pair: tuple[str, str] = OWNER) -> dict[str, str]:
    return {**NOWHERE, "AWS_ACCESS_KEY_ID": pair[0], "AWS_SECRET_ACCESS_KEY": pair[1]}


def tells_no_secret(outcome: Outcome) -> Outcome:
    said = outcome.out + outcome.err + str(outcome.receipt)
    for secret in (OWNER[1], STRANGER[1], OWNER[0], STRANGER[0], "x-no-such"):
        assert secret not in said, outcome.said
    assert not re.search(r"X-Amz-[A-Za-z-]+=[^*]", said), outcome.said
    return outcome


def bring(source: str, landing: Path, *options: str, env: Mapping[str, str]) -> Outcome:
    return tells_no_secret(importing(source, landing / "disk.img", *options, env=env))


def lands(outcome: Outcome, landing: Path, disk: bytes = RAW) -> Outcome:
    outcome.succeeded()
    assert (landing / "disk.img").read_bytes() == disk
    assert tree(landing) == ["disk.img"]
    return outcome


@pytest.fixture(scope="module")
def store(seaweed: Seaweed) -> Iterator[Seaweed]:
    for bucket in (PRIVATE, PUBLIC):
        seaweed.put(bucket, "disk.raw", RAW)
    seaweed.put(PRIVATE, ODD_KEY, RAW)
    return seaweed


@pytest.mark.parametrize(("name", "wrapper"), [("qcow2", None), ("qcow2-zlib", None), ("raw", None), ("raw", "gzip")])
def test_an_image_in_a_bucket_becomes_its_disk(name: str, wrapper: str | None, store: Seaweed, image: Get, landing: Path) -> None:
    original, stored = image(name), image(name, wrapper)
    url = store.put(PRIVATE, f"images/{stored.name}", stored)
    outcome = bring(url, landing, "--s3-endpoint", store.endpoint, "--digest", env=keys()).succeeded()
    proof.identical(landing / "disk.img", original, KINDS[name])
    assert tree(landing) == ["disk.img"]
    receipt = outcome.receipt
    assert receipt["source"] == url
    assert receipt["source_length"] == stored.stat().st_size
    assert "etag" in receipt["validators"]
    assert receipt["bytes_fetched"] <= 1.1 * stored.stat().st_size + 4 * MIB
    if stored.stat().st_size > 16 * MIB:
        assert receipt["connections"] > 1


def test_a_public_bucket_needs_no_credentials(store: Seaweed, landing: Path) -> None:
    outcome = bring(f"s3://{PUBLIC}/disk.raw", landing, "--s3-endpoint", store.endpoint, env=NOWHERE)
    lands(outcome, landing)
    assert any("without credentials" in note for note in outcome.receipt["notes"])


def test_credentials_can_be_left_out_though_there_are_some(store: Seaweed, landing: Path) -> None:
    url, endpoint = f"s3://{PUBLIC}/disk.raw", ("--s3-endpoint", store.endpoint)
    wrong = keys(("AKIANOBODY0000000000", "whatever"))
    importing(url, landing / "disk.img", *endpoint, env=wrong).failed(77, "denied")
    lands(bring(url, landing, *endpoint, "--s3-anonymous", env=wrong), landing)


def test_a_key_is_taken_letter_by_letter(store: Seaweed, landing: Path) -> None:
    outcome = bring(f"s3://{PRIVATE}/{ODD_KEY}", landing, "--s3-endpoint", store.endpoint, env=keys())
    lands(outcome, landing)
    assert outcome.receipt["source"] == f"s3://{PRIVATE}/{ODD_KEY}"


def test_the_incumbents_form_of_url_is_understood(store: Seaweed, landing: Path) -> None:
    outcome = bring(f"{store.endpoint}/{PRIVATE}/disk.raw", landing, "--s3", env=keys())
    lands(outcome, landing)
    assert outcome.receipt["source"] == f"s3://{PRIVATE}/disk.raw"


def test_inspect_reads_a_bucket_too(store: Seaweed) -> None:
    outcome = slipstream("inspect", f"{store.endpoint}/{PRIVATE}/disk.raw", "--s3", env=keys()).succeeded()
    assert f"s3://{PRIVATE}/disk.raw" in outcome.out
    tells_no_secret(outcome)


def test_a_checksum_file_may_lie_in_the_bucket(store: Seaweed, landing: Path) -> None:
    import hashlib

    sums = store.put(PRIVATE, "SHA256SUMS", f"{hashlib.sha256(RAW).hexdigest()}  disk.raw\n".encode())
    options = ("--s3-endpoint", store.endpoint, "--checksum-url", sums)
    outcome = lands(bring(f"s3://{PRIVATE}/disk.raw", landing, *options, env=keys()), landing)
    assert outcome.receipt["verified"]


# -- where credentials and settings come from


def test_a_profile_of_the_credentials_file_is_used(store: Seaweed, landing: Path, tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    pairs = {"default": STRANGER, "images": OWNER}
    file.write_text("".join(f"[{name}]\naws_access_key_id={k}\naws_secret_access_key={s}\n" for name, (k, s) in pairs.items()))
    url, endpoint = f"s3://{PRIVATE}/disk.raw", ("--s3-endpoint", store.endpoint)
    env = {**NOWHERE, "AWS_SHARED_CREDENTIALS_FILE": str(file)}
    tells_no_secret(importing(url, landing / "disk.img", *endpoint, env=env)).failed(77, "denied")
    outcome = bring(url, landing, *endpoint, env={**env, "AWS_PROFILE": "images"})
    lands(outcome, landing)
    assert any("shared-credentials-file" in note for note in outcome.receipt["notes"])


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_the_endpoint_may_come_from_the_environment(name: str, store: Seaweed, landing: Path) -> None:
    lands(bring(f"s3://{PRIVATE}/disk.raw", landing, env={**keys(), name: store.endpoint}), landing)


def test_the_endpoint_may_come_from_the_configuration_file(store: Seaweed, landing: Path, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(f"[profile images]\nendpoint_url = {store.endpoint}\nregion = eu-test-1\n")
    env = {**keys(), "AWS_CONFIG_FILE": str(file), "AWS_PROFILE": "images"}
    outcome = lands(bring(f"s3://{PRIVATE}/disk.raw", landing, env=env), landing)
    assert any("eu-test-1" in note for note in outcome.receipt["notes"])


def test_a_private_authority_is_trusted_when_named(store: Seaweed, authority: Authority, landing: Path) -> None:
    url, endpoint = f"s3://{PRIVATE}/disk.raw", ("--s3-endpoint", store.tls_endpoint)
    failed = bring(url, landing, *endpoint, env=keys()).failed(69, "tls")
    assert "--ca-file" in failed.err
    lands(bring(url, landing, *endpoint, "--ca-file", str(authority.ca_file), env=keys()), landing)
    (landing / "disk.img").unlink()
    lands(bring(url, landing, *endpoint, env={**keys(), "AWS_CA_BUNDLE": str(authority.ca_file)}), landing)


# -- refusals


@pytest.mark.parametrize(
    ("key", "env", "status", "code", "s3_code", "advice"),
    [
        ("disk.raw", keys(("AKIANOBODY0000000000", "x")), 77, "denied", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        ("disk.raw", keys((OWNER[0], "wrong")), 77, "denied", "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        ("disk.raw", keys(STRANGER), 77, "denied", "AccessDenied", "s3:GetObject"),
        ("disk.raw", NOWHERE, 77, "denied", "AccessDenied", "AWS_PROFILE"),
        ("no-such.raw", keys(), 69, "not-found", "NoSuchKey", "check the key"),
        ("disk.raw", {**NOWHERE, "AWS_ACCESS_KEY_ID": OWNER[0]}, 77, "credentials", "", "AWS_SECRET_ACCESS_KEY"),
        ("disk.raw", {**NOWHERE, "AWS_PROFILE": "nobody"}, 77, "credentials", "", "AWS_PROFILE"),
    ],
)
def test_a_refusal_says_what_to_do(
    key: str, env: dict[str, str], status: int, code: str, s3_code: str, advice: str, store: Seaweed, landing: Path
) -> None:
    outcome = bring(f"s3://{PRIVATE}/{key}", landing, "--s3-endpoint", store.endpoint, env=env).failed(status, code)
    assert f"s3://{PRIVATE}/{key}" in outcome.err
    assert f"s3_code: {s3_code}" in outcome.err or not s3_code
    assert advice in outcome.err.partition("what to do:")[2]
    assert tree(landing) == []


def test_an_empty_object_is_told_as_such(store: Seaweed, landing: Path) -> None:
    url = store.put(PRIVATE, "empty.raw", b"")
    bring(url, landing, "--s3-endpoint", store.endpoint, env=keys()).failed(65, "empty")


def test_a_bucket_that_does_not_exist_is_named(store: Seaweed, landing: Path) -> None:
    outcome = bring("s3://no-such-bucket/disk.raw", landing, "--s3-endpoint", store.endpoint, env=keys())
    outcome.failed(69, "not-found")
    assert "NoSuchBucket" in outcome.err


def test_an_authorization_header_is_refused(store: Seaweed, landing: Path, tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("user:password\n")
    outcome = bring(f"s3://{PRIVATE}/disk.raw", landing, "--s3-endpoint", store.endpoint, "--auth-file", str(file), env=keys())
    outcome.failed(64, "usage")
    assert "AWS_ACCESS_KEY_ID" in outcome.err


def test_a_stored_encoding_does_not_stand_in_the_way(store: Seaweed, landing: Path) -> None:
    import gzip

    url = store.put(PRIVATE, "encoded.raw.gz", gzip.compress(RAW), ContentEncoding="gzip")
    lands(bring(url, landing, "--s3-endpoint", store.endpoint, env=keys()), landing)


# -- signatures that expire, objects that change; within this process, to know when it is


def settings(store: Seaweed, **other: Any) -> Access:
    return Access(s3=S3Access(endpoint=store.endpoint, style="path", **other))


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLIPSTREAM_S3_PRESIGN_SECONDS", "2")


async def expired(url: str) -> None:
    """Wait until the server itself refuses the URL, at most 20 s."""

    def status() -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers={"Range": "bytes=0-0"}), timeout=5) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    async with asyncio.timeout(20):
        while await asyncio.to_thread(status) != 403:  # noqa: ASYNC110 # nobody tells when a server does
            await asyncio.sleep(0.1)


async def read(source: S3Source, start: int, end: int) -> bytes:
    data = b""
    async with aclosing(source.fetch(start, end)) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            data += piece
    return data


@pytest.mark.usefixtures("owner")
async def test_a_signature_is_renewed_before_it_expires(store: Seaweed) -> None:
    source = await S3Source.open(f"s3://{PRIVATE}/disk.raw", settings(store))
    try:
        first = source._http._trail[-1]
        async with asyncio.timeout(10):
            while not source._signer.due:  # noqa: ASYNC110 # a clock
                await asyncio.sleep(0.05)
        assert await read(source, 2 * MIB, 2 * MIB + 1000) == RAW[2 * MIB : 2 * MIB + 1000]
        assert source._http._trail[-1] != first
    finally:
        await source.close()


@pytest.mark.usefixtures("owner")
async def test_a_signature_that_expired_is_replaced_when_it_is_refused(store: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Signer, "due", property(lambda _: False))
    source = await S3Source.open(f"s3://{PRIVATE}/disk.raw", settings(store))
    try:
        first = source._http._trail[-1]
        await expired(first)
        parts = await asyncio.gather(*(read(source, at * 1000, at * 1000 + 1000) for at in range(8)))
        assert b"".join(parts) == RAW[:8000]
        assert source._http._trail[-1] != first
    finally:
        await source.close()


@pytest.mark.usefixtures("owner")
@pytest.mark.parametrize("late", [False, True], ids=["at once", "after renewal"])
async def test_an_object_that_was_replaced_is_never_mixed(late: bool, store: Seaweed) -> None:
    url = store.put(PRIVATE, "changing.raw", RAW)
    source = await S3Source.open(url, settings(store))
    try:
        await asyncio.to_thread(store.put, PRIVATE, "changing.raw", content.seeded(len(RAW), 22))
        if late:
            await expired(source._http._trail[-1])
        with pytest.raises(Failure) as caught:
            await read(source, 2 * MIB, 3 * MIB)
        assert caught.value.code == "source-changed"
        assert caught.value.evidence["url"] == url
    finally:
        await source.close()


@pytest.mark.usefixtures("owner")
async def test_a_bucket_may_be_a_host(store: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real("127.0.0.1" if host == f"{PRIVATE}.s3.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    source = await S3Source.open(
        f"s3://{PRIVATE}/disk.raw", Access(s3=S3Access(endpoint=store.virtual_endpoint, style="virtual"))
    )
    try:
        assert source.head == RAW[: len(source.head)]
        assert source._http._trail[-1].startswith(f"http://{PRIVATE}.s3.test:")
    finally:
        await source.close()


def test_other_sources_do_not_pay_for_boto3(nginx: Nginx, landing: Path) -> None:
    (nginx.folder / "small.raw").write_bytes(RAW)
    script = (
        "import sys\nfrom slipstream.__main__ import main\n"
        f"status = main(['import', {nginx.url('small.raw')!r}, {str(landing / 'disk.img')!r}, '--quiet'])\n"
        "print(status, sorted({name.partition('.')[0] for name in sys.modules} & {'boto3', 'botocore'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment({}), capture_output=True, text=True, timeout=60
    )
    assert ended.stdout.strip() == "0 []", ended.stdout + ended.stderr
