"""Which bucket, key and endpoint a URL names."""

import string
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer import options
from importer.api.failure import Failure
from importer.api.request import S3Access
from importer.sources import s3_place
from importer.sources.s3_place import Place
from slipstream.__main__ import parser

BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,40}[a-z0-9]", fullmatch=True)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60).filter(
    lambda key: not key.endswith("/") and len(key.encode()) <= 200
)


@given(bucket=BUCKETS, key=KEYS)
def test_a_key_is_whatever_follows_the_bucket(bucket: str, key: str) -> None:
    place = s3_place.parse(f"s3://{bucket}/{key}")
    assert (place.bucket, place.key) == (bucket, key)
    assert key.endswith(place.name)


@given(bucket=BUCKETS, key=KEYS)
def test_an_endpoints_url_names_the_same_object(bucket: str, key: str) -> None:
    source, found = s3_place.of_endpoint(f"http://127.0.0.1:9000/{bucket}/{quote(key, safe='')}", S3Access())
    assert s3_place.parse(source) == Place(bucket=bucket, key=key)
    assert (found.endpoint, found.style) == ("http://127.0.0.1:9000", "path")


@pytest.mark.parametrize(
    ("url", "style", "source", "endpoint", "region", "found_style"),
    [
        ("https://s3.corp.example/b/k/d.img", "auto", "s3://b/k/d.img", "https://s3.corp.example", None, "path"),
        ("https://S3.Corp.example:443/b/k", "auto", "s3://b/k", "https://s3.corp.example", None, "path"),
        ("http://[::1]:9000/b/k", "auto", "s3://b/k", "http://[::1]:9000", None, "path"),
        ("https://b.oss.example:8443/k/d.img", "virtual", "s3://b/k/d.img", "https://oss.example:8443", None, "virtual"),
        *(
            (f"https://{bucket}{host}/{rest}", "auto", "s3://my.bucket/k", f"https://{host}", region, style)
            for host, region in (
                ("s3.amazonaws.com", None),
                ("s3.eu-west-1.amazonaws.com", "eu-west-1"),
                ("s3-us-gov-west-1.amazonaws.com", "us-gov-west-1"),
                ("s3.dualstack.ap-southeast-2.amazonaws.com", "ap-southeast-2"),
                ("s3.cn-north-1.amazonaws.com.cn", "cn-north-1"),
            )
            for bucket, rest, style in (("", "my.bucket/k", "path"), ("my.bucket.", "k", "virtual"))
        ),
    ],
)
def test_an_endpoints_url_is_taken_apart(
    url: str, style: str, source: str, endpoint: str, region: str | None, found_style: str
) -> None:
    found = s3_place.of_endpoint(url, S3Access(style=style))
    assert found == (source, S3Access(endpoint=endpoint, region=region, style=found_style))


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://bucket/folder/", "s3://a b/key", "s3://bu_cket@x/key", "s3://-b/k",
     "s3://bucket/" + "k" * 1025, "s3://bucket/\udcff"],
)  # fmt: skip
def test_what_names_no_object_is_refused(url: str) -> None:
    with pytest.raises(Failure) as caught:
        s3_place.parse(url)
    assert caught.value.code == "usage"


@pytest.mark.parametrize(
    "url",
    ["https://host/", "https://host/bucket", "https://host/bucket/", "https://host/b/k?X-Amz-Signature=secret", "https:///b/k"],
)
def test_an_endpoints_url_without_an_object_is_refused(url: str) -> None:
    with pytest.raises(Failure) as caught:
        s3_place.of_endpoint(url, S3Access())
    assert caught.value.code == "usage"
    assert "secret" not in caught.value.render()


@pytest.mark.parametrize(
    ("endpoint", "region"),
    [
        (None, None),
        ("https://s3.eu-central-1.wasabisys.com", "eu-central-1"),
        ("https://s3.fr-par.scw.cloud:443", "fr-par"),
        ("https://s3.eu-west-3.amazonaws.com", "eu-west-3"),
        ("https://s3.amazonaws.com", None),
        ("http://127.0.0.1:9000", None),
        ("https://minio.corp.example", None),
        ("http://s3.example", None),
    ],
)
def test_a_region_is_read_from_a_name_that_tells_it(endpoint: str | None, region: str | None) -> None:
    assert s3_place.region_named(endpoint) == region


def refusal(parse: Callable[[str], object], url: str) -> str | None:
    try:
        parse(url)
    except Failure as failure:
        return failure.code
    return None


@given(st.text(string.printable, max_size=80))
def test_no_text_makes_the_parser_stumble(text: str) -> None:
    for parse in (s3_place.parse, s3_place.endpoint_url, lambda url: s3_place.of_endpoint(url, S3Access())):
        for url in (text, f"s3://{text}", f"https://{text}"):
            assert refusal(parse, url) in (None, "usage")


# -- the options


def asked(*argv: str) -> tuple[str, S3Access]:
    request = options.request_of(parser().parse_args(options.spelled_out(["import", *argv])))
    return request.source, request.access.s3


def test_the_options_say_how_s3_is_reached() -> None:
    assert asked("s3://b/k", "t") == ("s3://b/k", S3Access())
    words = ("--s3-endpoint", "HTTPS://S3.Corp.example/", "--s3-style", "virtual", "--s3-anonymous")
    assert asked("s3://b/k", "t", *words) == (
        "s3://b/k",
        S3Access(endpoint="https://s3.corp.example", style="virtual", anonymous=True),
    )
    assert asked("http://h:9000/b/k%20k", "t", "--s3") == ("s3://b/k k", S3Access(endpoint="http://h:9000", style="path"))
    assert asked("http://h/d", "t", "--s3-anonymous", "--checksum-url", "s3://b/SUMS")[1].anonymous


@pytest.mark.parametrize(
    "argv",
    [
        ("http://h/b/k", "--s3", "--s3-endpoint", "http://h"),
        ("disk.img", "--s3"),
        ("file:///disk.img", "--s3"),
        ("http://h/d", "--s3-anonymous"),
        ("http://h/d", "--s3-endpoint", "http://h"),
        ("s3://b/k", "--s3-endpoint", "h:9000"),
        ("s3://b/k", "--s3-endpoint", "ftp://h"),
        ("s3://b/k", "--s3-endpoint", "http://user:a-secret@h"),
        ("s3://AKIA:a-secret@b/k",),
    ],
)
def test_options_that_contradict_each_other_are_refused(argv: tuple[str, ...]) -> None:
    with pytest.raises(Failure) as caught:
        asked(argv[0], "t", *argv[1:])
    assert caught.value.code in ("usage", "secret-in-argv")
    assert "a-secret" not in caught.value.render()
