"""What S3 says of a refusal, read from its error documents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import CATALOGUE
from importer.sources import s3_answers
from importer.sources.answers import Answer
from importer.sources.s3_place import Place

PLACE = Place(bucket="images", key="disk.raw")


def told(body: str | bytes = b"", status: int = 403, secrets: tuple[str, ...] = (), **headers: str) -> s3_answers.Complaint:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = Answer(status=status, headers=fields, now=0.0, url="http://h/images/disk.raw")
    return s3_answers.complaint(answer, body if isinstance(body, bytes) else body.encode(), secrets)


def document(code: str, message: str = "No.", **fields: str) -> str:
    inner = "".join(f"<{name}>{text}</{name}>" for name, text in fields.items())
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message>{inner}</Error>'


def shown(found: s3_answers.Complaint, *, signed: bool = True) -> str:
    failure = s3_answers.failure(found, PLACE, endpoint="https://h", region="us-east-1", signed=signed)
    return failure.render() if failure is not None else ""


def test_every_remedy_is_of_the_catalogue() -> None:
    assert {remedy.failure for remedy in s3_answers.REMEDIES.values()} <= set(CATALOGUE)
    for code in s3_answers.REMEDIES:
        text = shown(told(document(code)))
        assert f"s3_code: {code}" in text
        assert "s3://images/disk.raw" in text
        assert "what to do: " in text


def test_what_was_secret_is_not_repeated() -> None:
    body = document("SignatureDoesNotMatch", "AKIA0 gave abcd&amp;ef", StringToSign="abcd&ef", AWSAccessKeyId="AKIA0")
    text = shown(told(body, secrets=("abcd&ef", "AKIA0")))
    assert "abcd" not in text
    assert "AKIA0" not in text


@pytest.mark.parametrize("signed", [True, False])
def test_a_refusal_without_credentials_asks_for_some(signed: bool) -> None:
    assert ("not public" in shown(told(document("AccessDenied")), signed=signed)) is not signed
    assert ("not public" in shown(told(status=403), signed=signed)) is not signed


def test_a_document_that_is_none_says_nothing() -> None:
    assert shown(told(b"<html>teapot</html>", status=418)) == ""


@pytest.mark.parametrize(
    ("found", "region"),
    [
        (told(document("PermanentRedirect"), status=301, x_amz_bucket_region="eu-west-1"), "eu-west-1"),
        (told(b"", status=307, x_amz_bucket_region="eu-west-1"), "eu-west-1"),
        (told(document("AuthorizationHeaderMalformed", Region="eu-west-1"), status=400), "eu-west-1"),
        (told(document("AuthorizationQueryParametersError", Region="garage"), status=400), "garage"),
        (told(document("AccessDenied"), status=403, x_amz_bucket_region="eu-west-1"), None),
        (told(document("PermanentRedirect"), status=301, x_amz_bucket_region="us-east-1"), None),
        (told(document("PermanentRedirect"), status=301), None),
        (told(document("PermanentRedirect"), status=301, x_amz_bucket_region="evil.example"), None),
        (told(document("PermanentRedirect", Region="a/../b"), status=301), None),
    ],
)
def test_another_region_is_taken_only_from_answers_about_regions(found: s3_answers.Complaint, region: str | None) -> None:
    assert s3_answers.elsewhere(found, "us-east-1") == region


@given(st.binary(max_size=400), st.sampled_from([301, 400, 403, 404, 500, 503]))
def test_no_body_makes_the_reader_stumble(body: bytes, status: int) -> None:
    assert all(line.isprintable() for line in shown(told(body, status=status)).split("\n"))


@given(st.text(max_size=80))
def test_texts_are_shown_without_control_characters(text: str) -> None:
    found = told(document("AccessDenied", text.replace("<", "")))
    assert found.message.isprintable()
    assert len(found.message) <= 200
