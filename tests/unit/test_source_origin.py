"""URLs: their one spelling, their origins, redirects, and what of them is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.sources.origin import (
    Origin,
    has_userinfo,
    keeps_secrets,
    next_hop,
    normalise,
    object_name,
    origin,
    redact,
    secrets_in,
)


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://Example.ORG", "http://example.org/"),
        ("HTTP://example.org:80/a#frag", "http://example.org/a"),
        ("https://example.org:443/a?b=%2F&c=d e", "https://example.org/a?b=%2F&c=d%20e"),
        ("https://example.org:8443/ä", "https://example.org:8443/%C3%A4"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("http://a_b.example/x", "http://a_b.example/x"),
    ],
)
def test_a_url_has_one_spelling(url: str, plain: str) -> None:
    assert normalise(url) == plain
    assert normalise(plain) == plain


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org/",
        "http:///x",
        "http://a b/",
        "http://u:p@h/",
        "http://h:99999/",
        "http://[::1/",
        "http://h%00/",
    ],
)
def test_what_cannot_be_asked_for_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"it |not http"):
        normalise(url)


@given(st.text())
def test_any_text_is_a_url_or_a_value_error_and_can_be_shown(text: str) -> None:
    assert redact(text).isprintable()
    try:
        plain = normalise("http://host/" + text)
    except ValueError:
        return
    assert plain.isascii()
    assert origin(plain) == Origin("http", "host", 80)


def test_what_is_shown_holds_no_secret() -> None:
    assert redact("https://me:pw@h:1/p/x.img?sig=abc&token&n=1#frag") == "https://h:1/p/x.img?sig=***&***&n=***"
    assert redact("http://[bad") == "(not a URL)"
    assert secrets_in("https://h/?a=12345%2F&b=x&token") == secrets_in("https://h/?a=12345%2F&token")
    assert set(secrets_in("https://h/?a=12345%2F&token")) == {"12345%2F", "12345/", "token"}
    assert has_userinfo("https://me:pw@h/")
    assert has_userinfo("S3://me@h")
    assert not has_userinfo("https://h/@x?y=@")


def test_the_name_is_the_last_part_of_the_path() -> None:
    assert object_name("https://h/a/b%20c.img?x=/y") == "b c.img"
    assert object_name("https://h/") == ""


def test_a_redirect_may_be_relative_or_lead_up_to_https() -> None:
    assert next_hop(("http://h/a/b?c",), "d") == "http://h/a/d"
    assert next_hop(("http://h/a",), "//other/x") == "http://other/x"
    assert next_hop(("http://h/a",), "https://h/a") == "https://h/a"


@pytest.mark.parametrize(
    ("trail", "location"),
    [
        (("https://h/",), "http://h/"),
        (("http://h/", "https://h/"), "http://other/"),
        (("http://h/",), "/"),
        (("http://h/", "http://h/b"), "/"),
        (("http://h/",), None),
        (("http://h/",), ""),
        (("http://h/",), "ftp://h/"),
        (("http://h/",), "http://u:secret@h/x"),
        (("http://h/",), "javascript:alert(1)"),
        (tuple(f"http://h/{n}" for n in range(6)), "/new"),
    ],
)
def test_bad_redirects_are_refused(trail: tuple[str, ...], location: str | None) -> None:
    with pytest.raises(Failure) as caught:
        next_hop(trail, location)
    assert caught.value.code == "redirects"
    assert "secret" not in caught.value.render()


def test_five_redirects_are_followed() -> None:
    trail: tuple[str, ...] = ("http://h/0",)
    for hop in range(1, 6):
        trail = (*trail, next_hop(trail, f"/{hop}"))
    assert len(trail) == 6


@pytest.mark.parametrize(
    ("trail", "kept"),
    [
        (("https://h/a", "https://h/b"), True),
        (("https://h/a", "https://h:444/b"), False),
        (("http://h/a", "https://h/b"), False),
        (("https://h/a", "https://sub.h/b"), False),
        (("https://h/a", "https://other/b", "https://h/c"), False),
    ],
)
def test_secrets_stay_with_the_first_origin(trail: tuple[str, ...], kept: bool) -> None:
    assert keeps_secrets(trail) is kept
