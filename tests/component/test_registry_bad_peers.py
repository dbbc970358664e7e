"""Registries that break, lie or lead astray: a named failure or the right disk, and no secret where it does not belong."""

import base64
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from builders import content
from fakes import registry_behaviours as bad
from fakes.badhttp import BadServer, Behaviour, HangUp, Request, Wire
from fakes.behaviours import truncating
from layers_read import QUICK, disk_of

from importer.api.failure import Exit, Failure
from importer.api.request import Access, RegistryAccess
from importer.sources.addresses import Kind, networks
from importer.sources.client import HttpPolicy
from importer.sources.reference import in_registry
from importer.sources.registry import Known, Registry

RAW = content.seeded(3 << 20, 41)
LAYER = bad.layer(RAW)
IMAGE = bad.image(LAYER)
DISK = ("disk/disk.img", RAW)
USER, PASSWORD = "puller", "hunter2-very-secret"
BASIC = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
TOKEN = "token-that-nobody-may-see"
NO_WAIT = replace(QUICK, longest_wait=0.5)


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name in ("auth.json", "registries.conf"):
        (tmp_path / name).write_text("{}" if name == "auth.json" else "")
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))


@pytest.fixture
def serve() -> Callable[[Behaviour], BadServer]:
    with ExitStack() as stack:
        yield lambda behave: stack.enter_context(BadServer(behave))


Serve = Callable[[Behaviour], BadServer]
OPEN = Access(insecure=True)


def logged_in(folder: Path, server: BadServer) -> Access:
    path = folder / "logins.json"
    path.write_text(json.dumps({"auths": {f"127.0.0.1:{server.port}": {"auth": BASIC}}}))
    return replace(OPEN, registry=RegistryAccess(auth_file=str(path)))


async def refused(source: str, access: Access = OPEN, policy: HttpPolicy = QUICK) -> Failure:
    with pytest.raises(Failure) as caught:
        await disk_of(source, access, policy)
    said = caught.value.render()
    assert not any(secret in said for secret in (PASSWORD, BASIC, TOKEN))
    return caught.value


def authorizations(server: BadServer) -> set[str]:
    return {request.headers.get("authorization", "") for request in server.requests}


# -- bytes


async def test_the_honest_registry_of_these_tests_is_believed(serve: Serve):
    server = serve(bad.serving(IMAGE))
    assert await disk_of(bad.name(server), OPEN) == DISK
    assert await disk_of(bad.name(server, f"@{IMAGE.digest}"), OPEN) == DISK


@pytest.mark.parametrize("where", ["pinned manifest", "told digest", "config", "layer"])
async def test_bytes_that_are_not_what_their_digest_says_are_noticed(serve: Serve, where: str):
    other = bad.image(LAYER, author="somebody else")
    swapped = LAYER[:-4] + b"evil"
    behave = {
        "pinned manifest": bad.serving(IMAGE, tag=bad.document(other.manifest)),
        "told digest": bad.serving(
            IMAGE, tag=bad.document(IMAGE.manifest, bad.MANIFEST, ("Docker-Content-Digest", other.digest))
        ),
        "config": bad.serving(IMAGE, config=bad.whole(b"x" * len(IMAGE.config))),
        "layer": bad.serving(IMAGE, layer=bad.whole(swapped)),
    }[where]
    pointer = f"@{IMAGE.digest}" if where == "pinned manifest" else ":latest"
    assert (await refused(bad.name(serve(behave), pointer))).code == "checksum-mismatch"


async def test_a_layer_of_another_length_is_refused_before_it_is_read(serve: Serve):
    short = serve(bad.serving(IMAGE, layer=bad.whole(LAYER[:-1000])))
    failure = await refused(bad.name(short))
    assert (failure.code, failure.evidence["promised"]) == ("truncated", str(len(LAYER)))
    long = serve(bad.serving(IMAGE, layer=bad.whole(LAYER + b"x")))
    assert (await refused(bad.name(long))).code == "corrupt"


async def test_a_layer_that_breaks_off_is_gone_on_with(serve: Serve):
    server = serve(bad.serving(IMAGE, layer=truncating(LAYER, 200_000, times=3)))
    assert await disk_of(bad.name(server), OPEN) == DISK


async def test_a_registry_without_ranges_is_read_in_one_go(serve: Serve):
    async def whole(_: Request, wire: Wire) -> None:
        await wire.answer(200, LAYER)

    assert await disk_of(bad.name(serve(bad.serving(IMAGE, layer=whole))), OPEN) == DISK


# -- documents


async def test_a_huge_manifest_is_refused_whether_its_length_is_told_or_not(serve: Serve):
    async def endless(_: Request, wire: Wire) -> None:
        await wire.head(200, (("Transfer-Encoding", "chunked"), ("Content-Type", bad.MANIFEST)))
        for _ in range(200):
            await wire.send(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        raise HangUp

    async def announced(_: Request, wire: Wire) -> None:
        await wire.head(200, (("Content-Length", 1 << 40), ("Content-Type", bad.MANIFEST)))
        await wire.send(b" " * 1000)

    for behave in (endless, announced):
        failure = await refused(bad.name(serve(bad.serving(IMAGE, tag=behave))))
        assert (failure.code, failure.exit) == ("unsafe", Exit.DATA)


async def test_what_is_no_image_is_refused_by_name(serve: Serve):
    page = b"<!doctype html><title>Welcome to the hotel</title>"
    old = b'{"schemaVersion": 1, "fsLayers": []}'
    for data, kind, code, said in (
        (page, "text/html", "protocol", "HTML page"),
        (old, "application/vnd.docker.distribution.manifest.v1+prettyjws", "unsupported", "schema 1"),
        (b'{"schemaVersion": 2, "artifactType": "application/x"}', bad.MANIFEST, "unsupported", "artifact"),
        (b"\x1b[2Jnonsense", bad.MANIFEST, "protocol", "not JSON"),
    ):
        failure = await refused(bad.name(serve(bad.serving(IMAGE, tag=bad.document(data, kind)))))
        assert (failure.code, said in failure.cause) == (code, True)
        assert "\x1b" not in failure.render()


async def test_indexes_without_end_are_given_up(serve: Serve):
    documents = [IMAGE.manifest]
    for _ in range(8):
        documents.append(bad.index_of(documents[-1], media_type=bad.INDEX if len(documents) > 1 else bad.MANIFEST))
    by_digest = {bad.digest_of(one): one for one in documents}

    def tagged(first: bytes) -> Behaviour:
        async def behave(request: Request, wire: Wire) -> None:
            await bad.document(by_digest.get(request.path.rpartition("/")[2], first))(request, wire)

        return bad.serving(IMAGE, tag=behave)

    assert (await refused(bad.name(serve(tagged(documents[8]))))).code == "unsafe"


async def test_what_is_not_there_and_what_fails_is_said(serve: Serve):
    unknown = b'{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}'
    failure = await refused(bad.name(serve(bad.serving(IMAGE, tag=bad.document(unknown, status=404)))))
    assert (failure.code, failure.evidence["body"]) == ("not-found", "NAME_UNKNOWN: repository name not known")
    server = serve(bad.serving(IMAGE, tag=bad.document(b"", status=500)))
    assert (await refused(bad.name(server))).code == "http-status"
    assert len(server.requests) == QUICK.probe_tries


# -- patience


@pytest.mark.parametrize("where", ["tag", "config", "layer"])
async def test_a_busy_registry_is_asked_again_when_it_says(serve: Serve, where: str):
    honest = {"tag": bad.document(IMAGE.manifest), "config": bad.whole(IMAGE.config), "layer": bad.whole(LAYER)}[where]
    server = serve(bad.serving(IMAGE, **{where: bad.busy(honest, times=1, retry_after=1)}))
    began = time.monotonic()
    assert await disk_of(bad.name(server), OPEN) == DISK
    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize("where", ["tag", "layer"])
async def test_a_registry_that_asks_for_too_long_a_wait_is_given_up_with_75(serve: Serve, where: str):
    honest = bad.document(IMAGE.manifest) if where == "tag" else bad.whole(LAYER)
    server = serve(bad.serving(IMAGE, **{where: bad.busy(honest, times=99, retry_after=3600)}))
    began = time.monotonic()
    failure = await refused(bad.name(server), policy=NO_WAIT)
    assert time.monotonic() - began < 3
    assert (failure.code, failure.exit, failure.evidence["retry_after"]) == ("overloaded", Exit.TEMPFAIL, "3600 s")


# -- astray


METADATA = "http://169.254.169.254/latest/meta-data/"


@pytest.mark.parametrize("where", ["tag", "config", "layer"])
async def test_a_redirect_to_a_metadata_address_is_refused(serve: Serve, where: str):
    server = serve(bad.serving(IMAGE, **{where: bad.redirecting(METADATA)}))
    failure = await refused(bad.name(server))
    assert (failure.code, failure.evidence["address"]) == ("address-refused", "169.254.169.254")


async def test_a_realm_at_a_metadata_address_is_refused(serve: Serve):
    server = serve(bad.challenging(bad.serving(IMAGE), f'Bearer realm="{METADATA}"', lambda _: False))
    assert (await refused(bad.name(server))).code == "address-refused"


async def test_a_public_registry_may_name_no_token_service_inside(serve: Serve):
    inside = serve(bad.document(json.dumps({"token": TOKEN}).encode()))
    server = serve(bad.challenging(bad.serving(IMAGE), f'Bearer realm="{inside.url("token")}"', lambda _: False))
    reference = in_registry(bad.name(server).removeprefix("docker://"))
    registry = Registry(f"http://127.0.0.1:{server.port}", reference, OPEN, Known(), QUICK)
    registry._client.origin_kind = Kind.PUBLIC
    registry._client.guard.allowed = networks(("127.0.0.1/32",))  # so that this one, which plays the public registry, is reached
    with pytest.raises(Failure, match="a public server may not lead to a loopback address"):
        await registry.by_pointer()
    await registry.close()
    assert not inside.requests


async def test_a_layer_may_lie_elsewhere_where_no_credentials_go(serve: Serve, tmp_path: Path):
    cdn = serve(bad.whole(LAYER))
    cdn_config = serve(bad.whole(IMAGE.config))
    held = bad.serving(IMAGE, layer=bad.redirecting(cdn.url("layer")), config=bad.redirecting(cdn_config.url("config")))
    server = serve(bad.challenging(held, 'Basic realm="x"', lambda given: given == f"Basic {BASIC}"))
    access = replace(logged_in(tmp_path, server), headers=(("X-Project", "images"),))
    assert await disk_of(bad.name(server), access) == DISK
    assert authorizations(server) == {"", f"Basic {BASIC}"}
    for other in (cdn, cdn_config):
        assert authorizations(other) == {""}
        assert all("x-project" not in request.headers for request in other.requests)
    assert all(request.headers.get("x-project") == "images" for request in server.requests)


@pytest.mark.parametrize("where", ["tag", "config", "layer"])
async def test_a_stranger_that_is_redirected_to_asks_for_a_log_in_in_vain(serve: Serve, tmp_path: Path, where: str):
    thief = serve(bad.document(b"{}"))
    stranger = serve(bad.challenging(bad.whole(LAYER), f'Bearer realm="{thief.url("token")}"', lambda _: False))
    server = serve(bad.serving(IMAGE, **{where: bad.redirecting(stranger.url("x"))}))
    assert (await refused(bad.name(server), logged_in(tmp_path, server))).code == "denied"
    assert authorizations(stranger) == {""}
    assert not thief.requests


async def test_a_log_in_goes_to_no_realm_elsewhere_without_tls(serve: Serve, tmp_path: Path):
    thief = serve(bad.document(json.dumps({"token": TOKEN}).encode()))
    challenge = f'Bearer realm="{thief.url("token")}",service="x"'
    server = serve(bad.challenging(bad.serving(IMAGE), challenge, lambda given: given == f"Bearer {TOKEN}"))
    failure = await refused(bad.name(server), logged_in(tmp_path, server))
    assert (failure.code, failure.evidence["realm"]) == ("credentials", thief.url("token"))
    assert not thief.requests
    assert authorizations(server) == {""}
    assert await disk_of(bad.name(server), OPEN) == DISK  # without a log-in there is nothing to lose
    assert authorizations(thief) == {""}


async def test_a_realm_that_redirects_takes_no_log_in_along(serve: Serve, tmp_path: Path):
    thief = serve(bad.document(json.dumps({"token": TOKEN}).encode()))
    realm = bad.redirecting(thief.url("token"))

    async def behave(request: Request, wire: Wire) -> None:
        if request.path.startswith("/token"):
            await realm(request, wire)
        else:
            challenge = f'Bearer realm="http://127.0.0.1:{server.port}/token"'
            await bad.challenging(bad.serving(IMAGE), challenge, lambda given: given == f"Bearer {TOKEN}")(request, wire)

    server = serve(behave)
    assert await disk_of(bad.name(server), logged_in(tmp_path, server)) == DISK
    assert f"Basic {BASIC}" in authorizations(server)
    assert authorizations(thief) == {""}


async def test_the_urls_of_foreign_layers_are_ignored(serve: Serve, tmp_path: Path):
    thief = serve(bad.challenging(bad.whole(LAYER), 'Basic realm="x"', lambda _: False))
    foreign = bad.image(LAYER, urls=(thief.url("layer"),))
    server = serve(bad.serving(foreign))
    assert await disk_of(bad.name(server), logged_in(tmp_path, server)) == DISK
    gone = serve(bad.serving(foreign, layer=bad.document(b"", status=404)))
    assert (await refused(bad.name(gone), logged_in(tmp_path, gone))).code == "not-found"
    assert not thief.requests


# -- logging in


@pytest.mark.parametrize(
    "challenge", ['Basic realm="x"', "", "Negotiate", 'Bearer service="x"', "Bearer realm=file:///etc/passwd"]
)
async def test_a_registry_that_is_never_content_is_asked_few_times(serve: Serve, tmp_path: Path, challenge: str):
    server = serve(bad.challenging(bad.serving(IMAGE), challenge, lambda _: False))
    failure = await refused(bad.name(server), logged_in(tmp_path, server))
    assert failure.code in ("denied", "protocol")
    assert len(server.requests) <= 3


@pytest.mark.parametrize(
    "said", [b"", b"{}", b'{"token": "a\\nX-Evil: 1"}', b"<html>", b'{"token": "' + b"x" * (2 << 20) + b'"}']
)
async def test_a_token_service_that_gives_no_token_is_named(serve: Serve, said: bytes):
    realm = serve(bad.document(said))
    server = serve(bad.challenging(bad.serving(IMAGE), f'Bearer realm="{realm.url("token")}"', lambda _: False))
    assert (await refused(bad.name(server))).code in ("protocol", "unsafe")


async def test_a_busy_token_service_is_asked_again(serve: Serve):
    realm = serve(bad.busy(bad.document(json.dumps({"token": TOKEN}).encode()), times=1, retry_after=1))
    server = serve(
        bad.challenging(bad.serving(IMAGE), f'Bearer realm="{realm.url("token")}"', lambda given: given == f"Bearer {TOKEN}")
    )
    assert await disk_of(bad.name(server), OPEN) == DISK
    assert len(realm.requests) == 2


async def test_a_token_that_runs_out_while_a_layer_loads_is_replaced(serve: Serve):
    given: list[str] = []
    uses = 0

    async def realm(_: Request, wire: Wire) -> None:
        given.append(f"{TOKEN}-{len(given)}")
        await wire.answer(200, json.dumps({"token": given[-1]}).encode())

    tokens = serve(realm)

    def fits(authorization: str) -> bool:
        """Each token is good for five requests."""
        nonlocal uses
        uses = uses + 1 if given and authorization == f"Bearer {given[-1]}" else 99
        if uses > 5:
            uses = 0
            return False
        return True

    big = content.seeded(12 << 20, 43)
    held = bad.image(bad.layer(big))
    server = serve(bad.challenging(bad.serving(held), f'Bearer realm="{tokens.url("token")}"', fits))
    assert await disk_of(bad.name(server), OPEN) == ("disk/disk.img", big)
    assert len(given) > 2


async def test_a_token_that_is_never_good_for_more_than_the_first_bytes_is_given_up(serve: Serve):
    tokens = serve(bad.document(json.dumps({"token": TOKEN}).encode()))
    opened = 0

    async def layer(request: Request, wire: Wire) -> None:
        nonlocal opened
        if request.headers.get("range", "").startswith("bytes=0-"):
            opened += 1
            await bad.whole(LAYER)(request, wire)
        else:
            await wire.answer(403, b'{"errors":[{"code":"DENIED","message":"no more"}]}')

    challenge = f'Bearer realm="{tokens.url("token")}"'
    held = bad.serving(IMAGE, layer=layer)
    server = serve(bad.challenging(held, challenge, lambda given: given == f"Bearer {TOKEN}"))
    assert (await refused(bad.name(server))).code == "denied"
    assert opened <= 4
