"""What boto3 is asked to sign, without asking anybody: hosts, regions, styles, tokens."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from importer.api.failure import Failure
from importer.api.request import S3Access
from importer.sources.s3 import Signer
from importer.sources.s3_place import Place

PLACE = Place(bucket="images", key="golden/a b+c.raw")
PATH = "/golden/a%20b%2Bc.raw"


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    import os

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE000000000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-nobody-may-see")
    return monkeypatch


def signer(place: Place = PLACE, **settings: object) -> Signer:
    return Signer(place, S3Access(**settings), 900)  # type: ignore[arg-type]


async def signed(one: Signer) -> tuple[str, str, str]:
    """Return origin, path and signed region."""
    url = urlsplit(await one.url())
    told = parse_qs(url.query)
    assert told["X-Amz-Expires"] == ["900"]
    assert told["X-Amz-SignedHeaders"] == ["host"]
    return f"{url.scheme}://{url.netloc}", url.path, told["X-Amz-Credential"][0].split("/")[2]


@pytest.mark.parametrize(
    ("settings", "origin", "path", "region"),
    [
        ({}, "https://images.s3.amazonaws.com", PATH, "us-east-1"),
        ({"region": "eu-west-1"}, "https://images.s3.eu-west-1.amazonaws.com", PATH, "eu-west-1"),
        ({"region": "cn-north-1"}, "https://images.s3.cn-north-1.amazonaws.com.cn", PATH, "cn-north-1"),
        ({"style": "path"}, "https://s3.amazonaws.com", f"/images{PATH}", "us-east-1"),
        ({"endpoint": "http://h:9000"}, "http://h:9000", f"/images{PATH}", "us-east-1"),
        ({"endpoint": "https://h/base"}, "https://h", f"/base/images{PATH}", "us-east-1"),
        ({"endpoint": "https://[::1]:9000"}, "https://[::1]:9000", f"/images{PATH}", "us-east-1"),
        ({"endpoint": "https://h", "style": "virtual"}, "https://images.h", PATH, "us-east-1"),
        ({"endpoint": "https://s3.fr-par.scw.cloud"}, "https://s3.fr-par.scw.cloud", f"/images{PATH}", "fr-par"),
    ],
)
async def test_a_url_leads_where_the_settings_say(settings: dict[str, object], origin: str, path: str, region: str) -> None:
    assert await signed(signer(**settings)) == (origin, path, region)


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
        ({"AWS_REGION": "eu-south-1", "AWS_DEFAULT_REGION": "eu-north-1"}, "eu-south-1"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-north-1"}, "eu-north-1"),
    ],
)
async def test_the_region_may_come_from_the_environment(
    variables: dict[str, str], region: str, environ: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        environ.setenv(name, value)
    assert (await signed(signer()))[2] == region
    assert (await signed(signer(endpoint="https://s3.fr-par.scw.cloud")))[2] == region


async def test_another_region_of_aws_has_its_own_endpoint_whatever_the_environment_says(environ: pytest.MonkeyPatch) -> None:
    first = signer(endpoint="https://s3.us-east-1.amazonaws.com", region="us-east-1", style="path")
    assert (await signed(first))[0] == "https://s3.us-east-1.amazonaws.com"
    environ.setenv("AWS_ENDPOINT_URL_S3", "https://elsewhere.example")
    assert (await signed(first.of_region("eu-west-1")))[::2] == ("https://s3.eu-west-1.amazonaws.com", "eu-west-1")


async def test_another_region_of_others_is_asked_for_at_the_same_endpoint(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("AWS_ENDPOINT_URL_S3", "http://h:9000")
    first = signer()
    assert (await signed(first))[::2] == ("http://h:9000", "us-east-1")
    assert (await signed(first.of_region("garage")))[::2] == ("http://h:9000", "garage")


async def test_a_session_token_is_signed_and_hidden(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("AWS_SESSION_TOKEN", "a/token+of=somebody")
    one = signer(endpoint="http://h")
    assert parse_qs(urlsplit(await one.url()).query)["X-Amz-Security-Token"] == ["a/token+of=somebody"]
    assert "token" not in one.endpoint + one.base


async def test_nothing_is_signed_without_credentials_or_where_it_is_not_wanted(environ: pytest.MonkeyPatch) -> None:
    one = signer(endpoint="http://h", anonymous=True)
    assert await one.url() == f"http://h/images{PATH}"
    environ.delenv("AWS_ACCESS_KEY_ID")
    environ.delenv("AWS_SECRET_ACCESS_KEY")
    two = signer(endpoint="http://h")
    assert await two.url() == f"http://h/images{PATH}"
    assert not any((one.signed, two.signed, one.due, two.due))


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("AWS_ENDPOINT_URL_S3", "not a url", "usage"),
        ("AWS_ENDPOINT_URL_S3", "ftp://h", "usage"),
        ("AWS_ENDPOINT_URL_S3", "http://user:a-secret@h", "usage"),
        ("AWS_REGION", "no region at all", "usage"),
        ("AWS_PROFILE", "nobody", "credentials"),
    ],
)
async def test_settings_that_cannot_be_used_are_told(variable: str, value: str, code: str, environ: pytest.MonkeyPatch) -> None:
    environ.setenv(variable, value)
    with pytest.raises(Failure) as caught:
        await signer().url()
    assert caught.value.code == code
    assert "a-secret" not in caught.value.render()
    assert "Traceback" not in caught.value.render()


@pytest.mark.parametrize("program", ["false", "echo not-json", "/no/such/program"])
async def test_a_credential_program_that_fails_is_told(program: str, environ: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    environ.setenv("AWS_CONFIG_FILE", str(config))
    environ.delenv("AWS_ACCESS_KEY_ID")
    environ.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Failure) as caught:
        await signer(endpoint="http://h").url()
    assert caught.value.code == "credentials"
