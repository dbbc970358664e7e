"""HttpSource behind redirects and proxies: where ranges go, and what goes along."""

import asyncio
import base64
from collections.abc import Callable

import pytest
from http_objects import (
    ASKED,
    BODY,
    DATA,
    EITHER_WAY,
    Bring,
    Reply,
    Request,
    collect,
    failing,
    good,
    opened,
    part,
    pour,
    send,
    serving,
)

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.addresses import Kind

pytestmark = pytest.mark.usefixtures("no_proxy")


# -- redirects


def redirecting(location: Callable[[Request], str | None], then: Reply = good) -> Reply:
    async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
        target = location(request)
        if target is None:
            await then(request, writer)
        else:
            send(writer, 302, Location=target)

    return reply


@EITHER_WAY
async def test_ranges_go_to_where_the_probe_ended_and_secrets_stay_with_the_first_origin(bring: Bring) -> None:
    access = Access(headers=(("Authorization", "Bearer s3cret"), ("X-Custom", "1")))
    signed = redirecting(lambda r: mirror.url + "?sig=a%2Fb%3D")
    async with serving(good) as mirror, serving(signed) as first, opened(first.url, access) as source:
        assert await bring(source, *ASKED) == BODY
        assert len(first.seen) == 1
        assert first.seen[0].headers["authorization"] == "Bearer s3cret"
        assert [request.path for request in mirror.seen] == ["/images/disk.img?sig=a%2Fb%3D"] * 2
        assert not any("authorization" in request.headers or "x-custom" in request.headers for request in mirror.seen)
        assert source.facts.name == "disk.img"
        assert any("sig=***" in note for note in source.facts.notes)
    moved = redirecting(lambda r: "/moved" if r.path == "/images/disk.img" else None)
    async with serving(moved) as first, opened(first.url, access):
        assert all(request.headers["x-custom"] == "1" for request in first.seen)


@pytest.mark.parametrize(
    ("location", "code", "requests"),
    [
        (lambda r: r.path, "redirects", 1),
        (lambda r: "/b" if r.path == "/a" else "/a", "redirects", 3),
        (lambda r: r.path + "x", "redirects", 6),
        (lambda r: "file:///etc/passwd", "redirects", 1),
        (lambda r: "http://user:pw@127.0.0.1/", "redirects", 1),
        (lambda r: "http://169.254.169.254/latest/meta-data", "address-refused", 1),
        (lambda r: "http://[::ffff:169.254.169.254]/latest", "address-refused", 1),
        (lambda r: "http://2852039166/latest", "address-refused", 1),
        (lambda r: "http://0.0.0.0/", "address-refused", 1),
    ],
)
async def test_bad_redirects_are_refused(location: Callable[[Request], str], code: str, requests: int) -> None:
    async with serving(redirecting(location)) as server:
        failure = await failing(server.url)
        assert (failure.code, len(server.seen)) == (code, requests)
        assert "pw" not in failure.render().replace("passwd", "")


async def test_a_redirect_from_a_public_server_to_the_loopback_is_refused_unless_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    # No public server is at hand: the guard is told that the loopback, which it connects to first, is one.
    from importer.sources import dial

    monkeypatch.setattr(dial, "classify", lambda address: Kind.PUBLIC)
    async with serving(good) as inside, serving(redirecting(lambda r: inside.url)) as outside:
        failure = await failing(outside.url)
        assert failure.code == "address-refused"
        assert failure.evidence["address"] == "127.0.0.1"
        assert not inside.seen
        async with opened(outside.url, Access(allow_addresses=("127.0.0.0/8",))) as source:
            assert source.facts.length == len(DATA)


@EITHER_WAY
async def test_an_expired_final_url_is_found_again_if_it_is_the_same_object(bring: Bring) -> None:
    turn = 1
    etag = '"v1"'

    async def signed(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.path == f"/signed?turn={turn}":
            part(writer, request, ETag=etag)
        else:
            send(writer, 403)

    reply = redirecting(lambda r: f"/signed?turn={turn}" if r.path == "/images/disk.img" else None, signed)
    async with serving(reply) as server, opened(server.url) as source:
        assert await bring(source, *ASKED) == BODY
        turn = 2
        results = await asyncio.gather(*(bring(source, *ASKED) for _ in range(3)))
        assert results == [BODY] * 3
        assert [request.path for request in server.seen].count("/images/disk.img") == 2
        turn, etag = 3, '"v2"'
        with pytest.raises(Failure) as caught:
            await bring(source, *ASKED)
        assert caught.value.code == "source-changed"


# -- proxies


async def test_a_proxy_is_used_and_its_unchecked_hop_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(good) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:hush%21@127.0.0.1:{proxy.port}")
        async with opened("http://images.example/disk.img") as source:
            assert proxy.seen[0].path == "http://images.example/disk.img"
            expected = base64.b64encode(b"me:hush!").decode()
            assert proxy.seen[0].headers["proxy-authorization"] == f"Basic {expected}"
            assert any("images.example was not checked" in note for note in source.facts.notes)
            assert "hush" not in repr(source.facts)
        assert (await failing("http://169.254.169.254/x")).code == "address-refused"
        async with opened("http://127.0.0.1:9/disk.img") as source:
            assert await collect(source, *ASKED) == BODY
            assert await pour(source, *ASKED) == BODY
            assert proxy.seen[-1].path == "http://127.0.0.1:9/disk.img"
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with serving(good) as server, opened(server.url) as source:
            assert not any("proxy" in note for note in source.facts.notes)
    failure = await failing("http://images.example/", Access(proxy="http://me:hush@127.0.0.1:1"))
    assert failure.code == "secret-in-argv"
    assert "hush" not in failure.render()
    assert (await failing("http://images.example/", Access(proxy="socks5://127.0.0.1:1"))).code == "usage"
    failure = await failing("https://images.example/", Access(proxy=f"127.0.0.1:{proxy.port}"))
    assert (failure.code, failure.evidence["proxy"]) == ("unreachable", f"127.0.0.1:{proxy.port}")
