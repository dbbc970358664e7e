"""Credential files, WWW-Authenticate, and where a log-in may be sent."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.sources import registry_auth
from importer.sources.registry_auth import (
    AuthFile,
    Challenge,
    Login,
    best,
    challenges,
    find_login,
    helper_of,
    parse_auth_file,
    token_url,
)

SECRET = "hunter2-very-secret"


def packed(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def file(**fields: object) -> AuthFile:
    return parse_auth_file(json.dumps(fields), "auth.json")


def user(found: Login | None) -> str | None:
    return None if found is None else found.user


def test_the_nearest_namespace_wins():
    known = file(
        auths={"host:5000": packed("all"), "host:5000/a": packed("a"), "host:5000/a/b": packed("ab"), "host": packed("other")}
    )
    for name, who in {
        "host:5000/x": "all", "host:5000/a/x": "a", "host:5000/a/b": "ab", "host:5000/a/bc": "a", "host:5000/a/b/c": "ab",
        "host/a/b": "other", "host:5001/a": None, "host.x/a": None, "ghost:5000/a": None,
    }.items():  # fmt: skip
        assert user(find_login(name, [known])) == who


def test_credentials_are_bound_to_the_port():
    known = file(auths={"example.com:443": packed("tls"), "https://example.com:8443": packed("alt")})
    assert find_login("example.com/a", [known]) is None
    assert user(find_login("example.com:443/a", [known])) == "tls"
    assert user(find_login("example.com:8443/a", [known])) == "alt"


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io", "https://docker.io"]
)
def test_docker_hub_has_many_keys(key):
    assert user(find_login("docker.io/library/alpine", [file(auths={key: packed("me")})])) == "me"


def test_the_first_file_that_knows_is_asked():
    files = [file(auths={}), file(auths={"a": {}, "b": packed("one")}), file(auths={"a": packed("two"), "b": packed("two")})]
    assert user(find_login("a/x", files)) == "two"
    assert user(find_login("b/x", files)) == "one"


def test_the_older_form_and_plain_fields_are_read():
    assert user(find_login("quay.io/a", [parse_auth_file(json.dumps({"quay.io": packed("me")}), "f")])) == "me"
    assert find_login("q/a", [file(auths={"q": {"username": "u", "password": "p:q"}})]) == Login(user="u", password="p:q")
    assert find_login("q/a", [file(auths={"q": packed("u", "p:q:r")})]) == Login(user="u", password="p:q:r")
    assert find_login("q/a", [file(auths={"q": {"registrytoken": "abc"}})]) == Login(token="abc")


def test_helpers_are_named_and_not_run():
    known = file(credHelpers={"quay.io": "secretservice", "https://index.docker.io/v1/": "hub"}, credsStore="desktop")
    assert helper_of("quay.io", [known]) == "docker-credential-secretservice"
    assert helper_of("docker.io", [known]) == "docker-credential-hub"
    assert helper_of("other", [known]) == "docker-credential-desktop"
    assert helper_of("other", [file(auths={})]) is None


@pytest.mark.parametrize(
    "entry",
    [
        5,
        {"auth": "%%%"},
        {"auth": base64.b64encode(b"no colon").decode()},
        {"identitytoken": SECRET},
        {"registrytoken": "a\nb"},
        {"auth": 5},
    ],
)
def test_an_entry_that_cannot_be_used_hurts_only_where_it_is_needed(entry):
    known = file(auths={"bad": entry, "good": packed("me")})
    assert user(find_login("good/a", [known])) == "me"
    with pytest.raises(Failure) as caught:
        find_login("bad/a", [known])
    assert caught.value.code == "credentials"
    assert SECRET not in caught.value.render()


@pytest.mark.parametrize("text", ["", "[]", "user:password", "[" * 100_000, '{"auths": 5}'])
def test_what_is_no_credential_file_is_refused(text):
    with pytest.raises(Failure) as caught:
        parse_auth_file(text, "f")
    assert caught.value.code == "credentials"


def test_reprs_hide_secrets():
    known = file(auths={"a": packed("me"), "b": {"registrytoken": SECRET}})
    login = find_login("a/x", [known])
    assert login is not None
    for shown in (repr(login), repr(known), repr(registry_auth.Token(text=SECRET, life=1))):
        assert SECRET not in shown
    assert login.basic.partition(" ")[2] in login.secrets


def test_challenges_are_taken_apart():
    text = 'Bearer realm="https://auth.example/token?a=b,c",service="reg \\"x\\"", scope=pull , error="e", Basic realm="r"'
    bearer, basic = challenges([text])
    assert bearer.scheme == "bearer"
    assert bearer.parameters == {"realm": "https://auth.example/token?a=b,c", "service": 'reg "x"', "scope": "pull", "error": "e"}
    assert basic == Challenge(scheme="basic", parameters={"realm": "r"})
    assert [one.scheme for one in challenges(["Basic", "Negotiate, Bearer realm=x"])] == ["basic", "negotiate", "bearer"]
    assert best(challenges([text])) == bearer
    assert best(challenges(["Basic realm=x"])) == Challenge(scheme="basic", parameters={"realm": "x"})
    assert best(challenges(["Bearer", "Negotiate"])) is None


@settings(deadline=500)
@given(st.lists(st.text('Bearer realm="x\\, \t=', max_size=300), max_size=5))
def test_any_header_ends_in_few_challenges(values):
    assert len(challenges(values)) <= registry_auth.MOST_CHALLENGES


def test_a_hostile_header_costs_little():
    for text in ('Bearer realm="' + "\\" * 8000, "a" * 8000, "a=" * 4000, ", " * 4000, 'a b="c", ' * 900):
        challenges([text] * 4)


TLS, PLAIN = "https://registry.example/", "http://registry.example:5000/"


def offered(realm: str, **more: str) -> Challenge:
    return Challenge(scheme="bearer", parameters={"realm": realm, **more})


def test_a_token_is_asked_for_pulling_and_nothing_more():
    url = token_url(offered("https://auth.example/token", service="reg x", scope="repository:a/b:push"), "a/b", TLS, login=True)
    assert url == "https://auth.example/token?service=reg%20x&scope=repository:a/b:pull"
    assert (
        token_url(offered("https://auth.example/t?x=1"), "a", TLS, login=False)
        == "https://auth.example/t?x=1&scope=repository:a:pull"
    )


@pytest.mark.parametrize(
    ("realm", "registry", "login", "fine"),
    [
        ("https://auth.example/", TLS, True, True),
        ("http://registry.example/", TLS, True, False),
        ("http://auth.example/", TLS, False, False),
        ("https://auth.example/", PLAIN, True, True),
        ("http://registry.example:5000/token", PLAIN, True, True),
        ("http://registry.example:5001/token", PLAIN, True, False),
        ("http://registry.example/token", PLAIN, True, False),
        ("http://auth.example/", PLAIN, False, True),
    ],
)
def test_a_log_in_goes_to_no_service_without_tls_save_the_registry_itself(realm, registry, login, fine):
    if fine:
        assert token_url(offered(realm), "a", registry, login=login).startswith(realm)
        return
    with pytest.raises(Failure) as caught:
        token_url(offered(realm), "a", registry, login=login)
    assert caught.value.code == "credentials"


@pytest.mark.parametrize(
    "realm", ["file:///etc/passwd", "https://user:pw@auth.example/", "auth.example", "https:///x", "https://a b/"]
)
def test_a_realm_that_is_no_url_is_refused(realm):
    with pytest.raises(Failure) as caught:
        token_url(offered(realm), "a", TLS, login=False)
    assert caught.value.code == "protocol"
    assert "pw" not in caught.value.render()


def test_tokens_are_read_and_bad_ones_refused():
    assert registry_auth.token(b'{"token": "abc", "expires_in": 300}') == registry_auth.Token(text="abc", life=300.0)
    assert registry_auth.token(b'{"access_token": "abc"}').life == registry_auth.SHORTEST_LIFE
    for life in (b"1", b"-5", b"NaN", b"true", b'"9"', b"null"):
        assert registry_auth.token(b'{"token": "a", "expires_in": %b}' % life).life == registry_auth.SHORTEST_LIFE
    for life in (b"1" * 4000, b"1e999", b"Infinity"):
        assert registry_auth.token(b'{"token": "a", "expires_in": %b}' % life).life == registry_auth.LONGEST_LIFE
    for data in (
        b"",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": 5}',
        b"[" * 100_000,
        b'{"token": "a b"}',
    ):
        with pytest.raises(Failure, match="no token"):
            registry_auth.token(data)


def test_what_the_user_gave_as_a_header_is_a_log_in():
    assert registry_auth.login_of_header(Login(user="u", password="p:q").basic) == Login(user="u", password="p:q")
    assert registry_auth.login_of_header("Bearer abc") == Login(token="abc")
    assert registry_auth.login_of_header("Digest x") is None
    assert registry_auth.login_of_header("Basic %%%") is None
