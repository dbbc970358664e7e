"""S3 endpoints that refuse, redirect, slow down and lie: a named error with a remedy or the right disk; keys stay at home."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from builders import content
from builders.images import MIB
from command import Outcome, Running, importing
from fakes import behaviours
from fakes import s3_behaviours as s3
from fakes.badhttp import BadServer, Request, Wire
from tools import tree

RAW = content.seeded(9 * MIB + 512, 31)
KEY, SECRET, TOKEN = "AKIAEXAMPLE000000000", "a-secret-that-nobody-may-see", "a-token/that+nobody=may-see"
NOWHERE = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
KEYS = {**NOWHERE, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
HASTE = {"SLIPSTREAM_STALL_SECONDS": "2", "SLIPSTREAM_GIVE_UP_SECONDS": "6"}
URL = "s3://images/golden/disk.raw"


def bring(server: BadServer, landing: Path, *options: str, env: Mapping[str, str] = KEYS) -> Outcome:
    endpoint = f"http://127.0.0.1:{server.port}"
    outcome = importing(URL, landing / "disk.img", "--s3-endpoint", endpoint, *options, env={**HASTE, **env})
    said = outcome.out + outcome.err + json.dumps(outcome.receipt)
    for request in server.requests:  # whatever was sent to be kept secret
        told = s3.query(request)
        for name in ("X-Amz-Signature", "X-Amz-Credential", "X-Amz-Security-Token"):
            assert name not in told or told[name] not in said, outcome.said
    for secret in (KEY, SECRET, TOKEN):
        assert secret not in said, outcome.said
    return outcome


def lands(outcome: Outcome, landing: Path) -> Outcome:
    outcome.succeeded()
    assert tree(landing) == ["disk.img"]
    assert (landing / "disk.img").read_bytes() == RAW
    return outcome


@pytest.mark.parametrize(
    ("status", "s3_code", "message", "exit_status", "code", "advice"),
    [
        (400, "ExpiredToken", "The provided token has expired.", 77, "denied", "temporary credentials"),
        (400, "InvalidToken", "The provided token is malformed.", 77, "denied", "temporary credentials"),
        (403, "RequestTimeTooSkewed", "The difference is too large.", 77, "denied", "clock"),
        (403, "AccessDenied", "Request has expired", 77, "denied", "clock"),
        (403, "InvalidObjectState", "Not valid for the object's storage class", 69, "archived", "restore"),
        (403, "AccountProblem", "There is a problem with your account", 77, "denied", "owner"),
        (403, "SomethingNew", "Nobody knows this yet.", 69, "http-status", "aws s3api"),
        (404, "NoSuchKey", "The specified key does not exist.", 69, "not-found", "key"),
        (400, "AuthorizationHeaderMalformed", "The region is wrong.", 69, "http-status", "AWS_REGION"),
        (503, "SlowDown", "Reduce your request rate.", 75, "overloaded", "later"),
    ],
)
def test_an_error_document_becomes_a_failure_with_a_remedy(
    status: int, s3_code: str, message: str, exit_status: int, code: str, advice: str, landing: Path
) -> None:
    with BadServer(s3.refusing(status, s3_code, message)) as server:
        outcome = bring(server, landing).failed(exit_status, code)
    assert advice in outcome.err.partition("what to do:")[2]
    assert URL in outcome.err
    if code != "overloaded":
        assert f"s3_code: {s3_code}" in outcome.err
        assert message in outcome.err
    assert tree(landing) == []
    assert {s3.place(request) for request in server.requests} == {"/images/golden/disk.raw"}


@pytest.mark.parametrize(("status", "code"), [(403, "SignatureDoesNotMatch"), (403, "Odd"), (400, "Strange"), (404, "NoSuchKey")])
def test_what_an_endpoint_echoes_is_not_repeated(status: int, code: str, landing: Path) -> None:
    with BadServer(s3.echoing(status, code)) as server:
        outcome = bring(server, landing, env={**KEYS, "AWS_SESSION_TOKEN": TOKEN})
    assert outcome.exit in (69, 77), outcome.said
    assert "***" in outcome.err


def test_a_refusal_without_a_document_is_told_as_s3s(landing: Path) -> None:
    async def mute(_: Request, wire: Wire) -> None:
        await wire.answer(403)

    with BadServer(mute) as server:
        outcome = bring(server, landing, env=NOWHERE).failed(77, "denied")
    assert "AWS_PROFILE" in outcome.err


def test_an_error_document_has_no_end_that_matters(landing: Path) -> None:
    async def endless(_: Request, wire: Wire) -> None:
        await wire.head(403, (("Content-Type", "application/xml"), ("Connection", "close")))
        for _ in range(500):
            await wire.send(b"<Error>" * 10_000)

    with BadServer(endless) as server:
        outcome = bring(server, landing).failed(77, "denied")
    assert outcome.high_water < 160 * MIB


# -- regions


@pytest.mark.parametrize("redirects", [True, False], ids=["301", "400"])
def test_a_bucket_of_another_region_is_found(redirects: bool, landing: Path) -> None:
    with BadServer(s3.of_region(RAW, "eu-test-7", redirects=redirects)) as server:
        outcome = lands(bring(server, landing), landing)
    assert {s3.region(request) for request in server.requests} == {"us-east-1", "eu-test-7"}
    assert any("eu-test-7" in note for note in outcome.receipt["notes"])


def test_a_region_that_is_set_is_used_at_once(landing: Path) -> None:
    with BadServer(s3.of_region(RAW, "eu-test-7", redirects=True)) as server:
        lands(bring(server, landing, env={**KEYS, "AWS_REGION": "eu-test-7"}), landing)
    assert {s3.region(request) for request in server.requests} == {"eu-test-7"}


@pytest.mark.parametrize("home", ["evil.example", "x/../y", "a@b", "-"])
def test_a_region_that_is_none_is_not_followed(home: str, landing: Path) -> None:
    with BadServer(s3.of_region(RAW, home, redirects=True)) as server:
        bring(server, landing).failed(69, "http-status", "redirects")
    assert {s3.region(request) for request in server.requests} == {"us-east-1"}


def test_an_endpoint_named_in_an_error_is_shown_but_not_asked(landing: Path) -> None:
    with BadServer(behaviours.honest(RAW)) as other:
        place = f"127.0.0.1:{other.port}"
        with BadServer(s3.refusing(301, "PermanentRedirect", "Ask elsewhere.", Endpoint=place)) as server:
            outcome = bring(server, landing).failed(69, "http-status")
    assert place in outcome.err
    assert other.requests == []


def test_regions_that_send_each_other_the_request_end(landing: Path) -> None:
    async def behave(request: Request, wire: Wire) -> None:
        there = f"eu-test-{request.number}"
        await s3.complain(wire, 301, "PermanentRedirect", "Elsewhere.", ("x-amz-bucket-region", there))

    with BadServer(behave) as server:
        bring(server, landing).failed(69, "redirects")
    assert len(server.requests) < 20


# -- redirects to other hosts


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/x", "http://0.0.0.0/x"])
def test_an_endpoint_does_not_lead_to_metadata(target: str, landing: Path) -> None:
    with BadServer(s3.redirecting(target)) as server:
        outcome = bring(server, landing).failed(77, "address-refused")
    assert "what to do" in outcome.err
    assert tree(landing) == []


def test_metadata_is_no_endpoint(landing: Path) -> None:
    outcome = importing(URL, landing / "disk.img", "--s3-endpoint", "http://169.254.169.254", env=KEYS)
    outcome.failed(77, "address-refused")


def test_a_redirect_takes_no_signature_and_no_header_along(landing: Path, tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("X-Project: a-secret-project\n")
    with BadServer(behaviours.honest(RAW)) as other, BadServer(s3.redirecting(other.url("disk.raw"))) as server:
        env = {**KEYS, "AWS_SESSION_TOKEN": TOKEN}
        lands(bring(server, landing, "--header-file", str(headers), env=env), landing)
    assert all(s3.query(request)["X-Amz-Security-Token"] == TOKEN for request in server.requests)
    assert {request.headers.get("x-project") for request in server.requests} == {"a-secret-project"}
    for request in other.requests:
        assert request.path == "/disk.raw"
        assert "x-project" not in request.headers
        assert not any(name.startswith("x-amz") or name == "authorization" for name in request.headers)


# -- on the way


def test_slow_down_means_fewer_connections_and_later(landing: Path) -> None:
    with BadServer(s3.slowing_down(RAW, times=3, beyond=2 * MIB)) as server:
        outcome = lands(bring(server, landing), landing)
    assert outcome.receipt["retries"] >= 1
    assert any("503" in note for note in outcome.receipt["notes"])


def test_signatures_are_renewed_throughout_an_import(landing: Path) -> None:
    """Each answer takes 0.4 s and each URL lives 1 s."""
    with BadServer(s3.expiring(RAW, pause=0.4)) as server:
        env = {**KEYS, "SLIPSTREAM_S3_PRESIGN_SECONDS": "1"}
        lands(bring(server, landing, "--connections", "1", env=env), landing)
    assert len({s3.query(request)["X-Amz-Signature"] for request in server.requests}) > 1


def test_a_token_replaced_in_its_file_is_read_again(landing: Path, tmp_path: Path) -> None:
    file, good = tmp_path / "credentials", ["first-token"]

    def write(token: str) -> None:
        text = f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\naws_session_token={token}\n"
        file.write_text(text)

    def now() -> str:
        if len(server.requests) == 3:  # the first token ends while the import runs; somebody has put another one there
            good[0] = "second-token"
            write(good[0])
        return good[0]

    write(good[0])
    with BadServer(s3.wanting_token(RAW, now)) as server:
        lands(bring(server, landing, env={**NOWHERE, "AWS_SHARED_CREDENTIALS_FILE": str(file)}), landing)
    assert {s3.query(request)["X-Amz-Security-Token"] for request in server.requests} == {"first-token", "second-token"}


def test_a_token_that_ends_for_good_is_told(landing: Path) -> None:
    good = [TOKEN]

    def now() -> str:
        if len(server.requests) == 3:
            good[0] = "another"
        return good[0]

    with BadServer(s3.wanting_token(RAW, now)) as server:
        outcome = bring(server, landing, env={**KEYS, "AWS_SESSION_TOKEN": TOKEN}).failed(77, "denied")
    assert "ExpiredToken" in outcome.err
    assert tree(landing) == []


def test_an_interrupted_import_goes_on_with_a_signature_of_its_own(landing: Path) -> None:
    disk = content.seeded(24 * MIB, 32)
    options = ("--connections", "1", "--quiet")
    with BadServer(s3.expiring(disk, pause=0.5)) as server:  # so that the next import begins in another second
        words = (URL, landing / "disk.img", "--s3-endpoint", f"http://127.0.0.1:{server.port}", *options)
        with Running("import", *words, env=KEYS) as running:
            end = time.monotonic() + 30
            while not any(12 * MIB < (request.range or (0, 0))[0] < 23 * MIB for request in list(server.requests)):
                assert time.monotonic() < end
                time.sleep(0.02)  # until the import is under way; nobody tells
            running.process.terminate()
            running.finish().failed(75, "interrupted")
        before = {s3.query(request)["X-Amz-Signature"] for request in server.requests}
        count = len(server.requests)
        outcome = bring(server, landing, *options).succeeded()
    assert (landing / "disk.img").read_bytes() == disk
    assert outcome.receipt["bytes_fetched"] < 18 * MIB, outcome.receipt
    assert before.isdisjoint(s3.query(request)["X-Amz-Signature"] for request in server.requests[count:])


# -- web identity


def test_a_web_identity_becomes_temporary_credentials(landing: Path, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.write_text("a.web.identity")
    with (
        BadServer(s3.token_service(("ASIAEXAMPLE000000000", "another-secret"), TOKEN)) as sts,
        BadServer(s3.wanting_token(RAW, lambda: TOKEN)) as server,
    ):
        env = {
            **NOWHERE, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/images", "AWS_WEB_IDENTITY_TOKEN_FILE": str(identity),
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{sts.port}", "AWS_REGION": "eu-test-1",
        }  # fmt: skip
        outcome = lands(bring(server, landing, env=env), landing)
    assert {s3.key_id(request) for request in server.requests} == {"ASIAEXAMPLE000000000"}
    assert any("assume-role-with-web-identity" in note for note in outcome.receipt["notes"])


def test_a_token_service_that_refuses_is_told_apart(landing: Path, tmp_path: Path) -> None:
    identity = tmp_path / "identity"
    identity.write_text("a.web.identity")
    with BadServer(s3.refusing_tokens("AccessDenied")) as sts, BadServer(behaviours.honest(RAW)) as server:
        env = {
            **NOWHERE, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/images", "AWS_WEB_IDENTITY_TOKEN_FILE": str(identity),
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{sts.port}", "AWS_REGION": "eu-test-1", "AWS_MAX_ATTEMPTS": "1",
        }  # fmt: skip
        outcome = bring(server, landing, env=env).failed(77, "credentials")
    assert "AccessDenied" in outcome.err
    assert server.requests == []
