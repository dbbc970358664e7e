"""Images in a real registry, in layouts and in archives, made by buildah and skopeo: what is found, and who is told what."""

import asyncio
import base64
import json
import os
import shutil
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from builders import content
from builders.container_images import Workshop
from command import ROOT
from fakes.certificates import Authority
from fakes.docker_registry import PASSWORD, USER, DockerRegistry
from fakes.token_service import TokenService
from layers_read import QUICK, disk_in, disk_of
from tools import needs, tool

from importer.api.failure import Failure
from importer.api.request import Access, RegistryAccess
from importer.sources.images import open_image

MIB = 1 << 20
RAW = content.seeded(2 * MIB, 31)
OTHER = content.seeded(MIB, 32)
ARM = content.seeded(MIB, 33)
DISK = ("disk/disk.img", RAW)
SECRETS = (PASSWORD, base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the credentials and mirrors of whoever runs the tests out; return the directory of settings in use."""
    for name in ("REGISTRY_AUTH_FILE", "CONTAINERS_REGISTRIES_CONF", "DOCKER_CONFIG", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    home = tmp_path / "home"
    for name, folder in (("HOME", home), ("XDG_RUNTIME_DIR", home / "run"), ("XDG_CONFIG_HOME", home / ".config")):
        folder.mkdir(exist_ok=True)
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(home / "registries.conf"))
    (home / "registries.conf").write_text("")
    return home


@pytest.fixture(scope="module")
def filled(workshop: Workshop, registry: DockerRegistry) -> DockerRegistry:
    """The registry with images of every kind in it."""
    needs("buildah", "skopeo")
    host = f"docker://{registry.host('open')}"
    # Root's containers have one memory of blobs, which no option moves: what it knows of a layer from before would be used again,
    # so the layers are new each time, and those as the tools like them best are pushed first.
    one = workshop.image("one", {"etc/motd": os.urandom(16), "disk/disk.img": RAW})
    workshop.push(one, f"{host}/kinds/gzip")
    workshop.push(one, f"{host}/kinds/docker", "--format", "v2s2")
    layout, plain = f"oci:{workshop.folder}/layout", f"dir:{workshop.folder}/plain"
    workshop.push(one, f"{layout}:gzip")
    workshop.push(one, plain, "--disable-compression")  # into a directory of this kind only
    workshop.copy(plain, f"{layout}:plain", "--preserve-digests")
    workshop.copy(plain, f"{host}/kinds/plain", "--preserve-digests")
    workshop.copy(plain, f"oci:{workshop.folder}/zstd:zstd", "--dest-compress-format", "zstd")
    workshop.copy(f"oci:{workshop.folder}/zstd:zstd", f"{host}/kinds/zstd", "--preserve-digests")
    workshop.push(one, f"docker-archive:{workshop.folder}/archive.tar:demo/disk:1")
    arm = workshop.image("arm", {"etc/motd": os.urandom(16), "disk/arm.img": ARM}, arch="arm64")
    workshop.index("both", f"{host}/kinds/index", one, arm)
    workshop.push(arm, f"{host}/kinds/arm")
    workshop.push(arm, f"{layout}:arm")
    return registry


def over_http(**settings: str) -> Access:
    return Access(insecure=True, registry=RegistryAccess(**settings))


def named(registry: DockerRegistry, name: str, face: str = "open") -> str:
    return f"docker://{registry.host(face)}/kinds/{name}"


def auth_file(folder: Path, host: str, user: str = USER, password: str = PASSWORD) -> str:
    path = folder / "auth.json"
    packed = base64.b64encode(f"{user}:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {host: {"auth": packed}}}))
    return str(path)


async def refused(source: str, access: Access) -> Failure:
    with pytest.raises(Failure) as caught:
        await disk_of(source, access)
    assert not any(secret in caught.value.render() for secret in SECRETS)
    return caught.value


# -- what is found


@pytest.mark.parametrize(("name", "compression"), [("plain", ""), ("gzip", "gzip"), ("zstd", "zstd"), ("docker", "gzip")])
async def test_layers_of_every_compression_bring_the_disk(filled: DockerRegistry, name: str, compression: str):
    layers = await open_image(named(filled, name), over_http(), QUICK)
    try:
        assert [blob.compression for blob in layers.blobs] == [compression]
        assert await disk_in(layers) == DISK
        assert layers.shown == f"{named(filled, name)}:latest"
        assert "the registry was asked without TLS" in layers.notes
        source = await layers.open(layers.blobs[0])
        assert source.facts.ranges
        assert source.facts.length == layers.blobs[0].size
        assert source.facts.name == layers.blobs[0].digest
        await source.close()
    finally:
        await layers.close()


async def test_a_digest_pins_what_a_tag_led_to(filled: DockerRegistry):
    layers = await open_image(named(filled, "gzip"), over_http(), QUICK)
    await layers.close()
    pinned = f"{named(filled, 'gzip')}@{layers.digest}"
    assert await disk_of(pinned, over_http()) == DISK
    missing = await refused(f"{named(filled, 'gzip')}@sha256:{'0' * 64}", over_http())
    assert missing.code == "not-found"
    assert "MANIFEST_UNKNOWN" in missing.evidence["body"]


async def test_an_index_is_chosen_from_by_platform(filled: DockerRegistry):
    here = {"x86_64": DISK, "aarch64": ("disk/arm.img", ARM)}
    assert await disk_of(named(filled, "index"), over_http()) == here[os.uname().machine]
    assert await disk_of(named(filled, "index"), over_http(platform="linux/arm64")) == ("disk/arm.img", ARM)
    wrong = await refused(named(filled, "index"), over_http(platform="linux/s390x"))
    assert (wrong.code, wrong.evidence["there_are"]) == ("wrong-platform", "linux/amd64, linux/arm64")


async def test_an_image_without_choice_is_taken_unless_a_platform_is_wanted(filled: DockerRegistry):
    assert await disk_of(named(filled, "arm"), over_http()) == ("disk/arm.img", ARM)
    layers = await open_image(named(filled, "arm"), over_http(), QUICK)
    await layers.close()
    if os.uname().machine == "x86_64":
        assert "the image is made for linux/arm64, this machine is linux/amd64" in layers.notes
    wrong = await refused(named(filled, "arm"), over_http(platform="linux/amd64"))
    assert (wrong.code, wrong.evidence["there_are"]) == ("wrong-platform", "linux/arm64")


async def test_whiteouts_and_upper_layers_count(filled: DockerRegistry, workshop: Workshop):
    host = f"docker://{filled.host('open')}/layers"
    for name, layers, end in (
        ("replaced", ({"disk/a.img": OTHER}, {"disk/a.img": RAW}), ("disk/a.img", RAW)),
        ("renamed", ({"disk/a.img": OTHER}, {"disk/a.img": None, "disk/b.img": RAW}), ("disk/b.img", RAW)),
        ("below", ({"disk/a.img": RAW}, {"etc/motd": b"hello"}), ("disk/a.img", RAW)),
        ("deleted", ({"disk/a.img": RAW}, {"disk/a.img": None}), "disk-missing"),
        ("none", ({"etc/motd": b"hello", "disk.img": RAW},), "disk-missing"),
        ("two", ({"disk/a.img": RAW, "disk/b.img": OTHER},), "several-disks"),
    ):
        built = workshop.image(f"layers-{name}", {**layers[0], "etc/new": os.urandom(16)}, *layers[1:])
        workshop.push(built, f"{host}/{name}")
        if isinstance(end, str):
            failure = await refused(f"{host}/{name}", over_http())
            assert failure.code == end, name
            if name == "none":
                assert "disk.img" in failure.evidence["found"]
        else:
            assert await disk_of(f"{host}/{name}", over_http()) == end, name


async def test_a_bootable_container_is_refused_by_name(filled: DockerRegistry, workshop: Workshop):
    workshop.push(workshop.image("bootc", {"etc/x": os.urandom(16)}, labels=("containers.bootc=1",)), named(filled, "bootc"))
    failure = await refused(named(filled, "bootc"), over_http())
    assert (failure.code, "bootable container" in failure.cause) == ("unsupported", True)


# -- layouts and archives


async def test_a_layout_is_read_by_tag_and_by_digest(filled: DockerRegistry, workshop: Workshop):
    folder = f"{workshop.folder}/layout"
    assert await disk_of(f"oci-layout:{folder}:gzip") == DISK
    assert await disk_of(f"oci-layout:{folder}:plain") == DISK
    assert await disk_of(f"oci-layout:{workshop.folder}/zstd") == DISK
    digest = (await open_image(f"oci-layout:{folder}:arm", Access())).digest
    assert await disk_of(f"oci-layout:{folder}@{digest}") == ("disk/arm.img", ARM)
    assert (await refused(f"oci-layout:{folder}", Access())).evidence["there_are"] == "arm, gzip, plain"
    absent = await refused(f"oci-layout:{folder}:nope", Access())
    assert (absent.code, absent.evidence["there_are"]) == ("not-found", "arm, gzip, plain")


@pytest.mark.parametrize("spoilt", ["cut layer", "longer layer", "missing layer", "other config", "other manifest", "no marker"])
async def test_a_spoilt_layout_is_refused(filled: DockerRegistry, workshop: Workshop, tmp_path: Path, spoilt: str):
    folder = tmp_path / "layout"
    shutil.copytree(workshop.folder / "layout", folder)
    layers = await open_image(f"oci-layout:{folder}:gzip", Access())
    entries = json.loads((folder / "index.json").read_text())["manifests"]
    named = next(one["digest"] for one in entries if one["digest"] == layers.digest)
    manifest = folder / "blobs" / named.replace(":", "/")
    layer = folder / "blobs" / str(layers.blobs[0].digest).replace(":", "/")
    config = folder / "blobs" / json.loads(manifest.read_text())["config"]["digest"].replace(":", "/")
    code = "checksum-mismatch"
    match spoilt:
        case "cut layer":
            os.truncate(layer, layer.stat().st_size - 1)
            code = "truncated"
        case "longer layer":
            layer.write_bytes(layer.read_bytes() + b"x")
            code = "corrupt"
        case "missing layer":
            layer.unlink()
            code = "not-found"
        case "other config":
            config.write_bytes(config.read_bytes().replace(b"amd64", b"arm64").replace(b'"linux"', b'"Linux"'))
        case "other manifest":
            manifest.write_bytes(b" " + manifest.read_bytes())
            code = "unsafe"  # longer than the index says
        case _:
            (folder / "oci-layout").unlink()
            code = "not-found"
    assert (await refused(f"oci-layout:{folder}:gzip", Access())).code == code


async def test_an_archive_of_docker_save_is_read(filled: DockerRegistry, workshop: Workshop, tmp_path: Path):
    path = workshop.folder / "archive.tar"
    for pointer in ("", ":demo/disk:1", ":docker.io/demo/disk:1"):
        assert await disk_of(f"docker-archive:{path}{pointer}") == DISK
    layers = await open_image(f"docker-archive:{path}", Access())
    assert layers.blobs[0].digest == layers.blobs[0].diff_id is not None
    assert (
        (await refused(f"docker-archive:{path}:demo/disk:2", Access())).evidence["there_are"].startswith("docker.io/demo/disk:1")
    )
    cut = tmp_path / "cut.tar"
    shutil.copy(path, cut)
    os.truncate(cut, path.stat().st_size // 2)
    assert (await refused(f"docker-archive:{cut}", Access())).code in ("truncated", "not-found")
    (tmp_path / "x.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    assert "gunzip" in (await refused(f"docker-archive:{tmp_path}/x.tar", Access())).hint
    assert (await refused(f"docker-archive:{ROOT}/README.md", Access())).code == "corrupt"
    workshop.copy(f"oci:{workshop.folder}/layout:plain", f"docker-archive:{tmp_path}/skopeo.tar:demo/disk:1")
    assert await disk_of(f"docker-archive:{tmp_path}/skopeo.tar") == DISK


# -- who is told what


async def test_tls_is_wanted_unless_it_is_waived(filled: DockerRegistry, authority: Authority):
    assert await disk_of(named(filled, "gzip", "tls"), Access(ca_file=str(authority.ca_file))) == DISK
    assert (await refused(named(filled, "gzip", "tls"), Access())).code == "tls"
    assert (await refused(named(filled, "gzip", "open"), Access(ca_file=str(authority.ca_file)))).code == "tls"
    assert await disk_of(named(filled, "gzip", "tls"), Access(insecure=True)) == DISK


@pytest.mark.parametrize("face", ["basic", "token"])
async def test_a_log_in_is_found_in_files(
    filled: DockerRegistry, authority: Authority, tokens: TokenService, tmp_path: Path, face: str, nobodys_settings: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    host, source = filled.host(face), named(filled, "gzip", face)
    trusting = Access(ca_file=str(authority.ca_file))
    denied = await refused(source, trusting)
    assert denied.code == "denied"
    assert "podman login" in denied.hint
    written = auth_file(tmp_path, host)
    assert await disk_of(source, replace(trusting, registry=RegistryAccess(auth_file=written))) == DISK
    monkeypatch.setenv("REGISTRY_AUTH_FILE", written)
    assert await disk_of(source, trusting) == DISK
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    for place in ("run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json"):
        usual = nobodys_settings / place
        usual.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(written, usual)
        assert await disk_of(source, trusting) == DISK, place
        usual.unlink()
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert await disk_of(source, replace(trusting, headers=(("Authorization", f"Basic {basic}"),))) == DISK
    wrong = await refused(source, replace(trusting, registry=RegistryAccess(auth_file=auth_file(tmp_path, host, password="no"))))
    assert (wrong.code, wrong.evidence["user"]) == ("denied", USER)
    another = auth_file(tmp_path, host.partition(":")[0])  # the same host, another port
    assert (await refused(source, replace(trusting, registry=RegistryAccess(auth_file=another)))).code == "denied"


async def test_a_helper_is_named_and_not_run(filled: DockerRegistry, authority: Authority, tmp_path: Path):
    path = tmp_path / "config.json"
    path.write_text('{"credsStore": "desktop"}')
    access = Access(ca_file=str(authority.ca_file), registry=RegistryAccess(auth_file=str(path)))
    assert await disk_of(named(filled, "gzip", "tls"), access) == DISK  # public images need none
    denied = await refused(named(filled, "gzip", "basic"), access)
    assert denied.code == "credentials"
    assert "docker-credential-desktop" in denied.hint


async def test_a_token_is_asked_for_pulling_only_and_renewed_before_its_end(
    filled: DockerRegistry, authority: Authority, tokens: TokenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    access = Access(ca_file=str(authority.ca_file), registry=RegistryAccess(auth_file=auth_file(tmp_path, filled.host("token"))))
    tokens.wanted.clear()
    layers = await open_image(named(filled, "gzip", "token"), access, QUICK)
    source = await layers.open(layers.blobs[0])
    assert [(one.user, one.scope) for one in tokens.wanted] == [(USER, "repository:kinds/gzip:pull")]
    registry = source._registry  # type: ignore[attr-defined]
    registry._renew_at = 0.0  # as it is when two thirds of the token's life are over
    pieces = await asyncio.gather(*(_part(source, at) for at in range(0, source.facts.length, 300_000)))
    assert len(tokens.wanted) == 2  # once for all that were under way
    await source.close()
    await layers.close()
    again = await open_image(named(filled, "gzip", "token"), access, QUICK)
    whole = await again.open(again.blobs[0])
    assert b"".join([await _part(whole, at) for at in range(0, whole.facts.length, 300_000)]) == b"".join(pieces)
    await whole.close()
    await again.close()


async def _part(source, start: int) -> bytes:
    data = b""
    async with aclosing(source.fetch(start, min(start + 300_000, source.facts.length))) as pieces:
        async for piece in pieces:
            data += piece
    return data


async def test_anonymous_tokens_are_enough_for_public_images(filled: DockerRegistry, authority: Authority, tokens: TokenService):
    tokens.anonymous = True
    try:
        assert await disk_of(named(filled, "gzip", "token"), Access(ca_file=str(authority.ca_file))) == DISK
    finally:
        tokens.anonymous = False


# -- mirrors


def configured(folder: Path, text: str) -> Access:
    path = folder / "mirrors.conf"
    path.write_text(text)
    return Access(registry=RegistryAccess(registries_conf=str(path)))


async def test_mirrors_are_asked_first_and_passed_over_when_they_fail(filled: DockerRegistry, tmp_path: Path):
    text = f"""
[[registry]]
prefix = "nowhere.invalid/golden"
location = "{filled.host("open")}/kinds"
insecure = true
[[registry.mirror]]
location = "127.0.0.1:9/kinds"
[[registry.mirror]]
location = "{filled.host("open")}/absent"
insecure = true
"""
    access = configured(tmp_path, text)
    layers = await open_image("docker://nowhere.invalid/golden/gzip", access, QUICK)
    try:
        assert await disk_in(layers) == DISK
        assert [note.partition(":")[0] for note in layers.notes if "in vain" in note] == ["asked before, in vain"] * 2
        assert layers.shown == "docker://nowhere.invalid/golden/gzip:latest"
    finally:
        await layers.close()
    absent = await refused("docker://nowhere.invalid/golden/absent", access)
    assert absent.code == "not-found"
    assert "127.0.0.1:9/kinds/absent: no connection" in absent.evidence["mirror_1"]


async def test_a_mirror_gets_no_credentials_of_the_registry_itself(filled: DockerRegistry, authority: Authority, tmp_path: Path):
    text = f'[[registry]]\nlocation = "registry.invalid"\n[[registry.mirror]]\nlocation = "{filled.host("basic")}"\n'
    basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    access = replace(configured(tmp_path, text), ca_file=str(authority.ca_file), headers=(("Authorization", f"Basic {basic}"),))
    failure = await refused("docker://registry.invalid/kinds/gzip", access)
    assert "user name and password" in failure.evidence["mirror_1"]


async def test_a_blocked_registry_is_not_asked(filled: DockerRegistry, tmp_path: Path):
    access = configured(tmp_path, f'[[registry]]\nlocation = "{filled.host("open")}"\nblocked = true\n')
    assert (await refused(named(filled, "gzip"), replace(access, insecure=True))).code == "denied"


async def test_a_layer_that_its_registry_spoilt_is_noticed(filled: DockerRegistry, workshop: Workshop):
    spoilt = workshop.image("spoilt", {"disk/a.img": os.urandom(MIB)})
    source = f"docker://{filled.host('open')}/spoilt/disk"
    workshop.push(spoilt, source)
    layers = await open_image(source, over_http(), QUICK)
    await layers.close()
    path = filled.storage(str(layers.blobs[0].digest))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert (await refused(source, over_http())).code == "checksum-mismatch"
    os.truncate(path, len(data) - 10)
    assert (await refused(source, over_http())).code == "truncated"


Get = Callable[..., Path]


async def test_a_real_qcow2_comes_out_as_it_went_in(filled: DockerRegistry, workshop: Workshop, image: Get, tmp_path: Path):
    tool("qemu-img")
    qcow2 = image("qcow2-zlib")
    source = f"docker://{filled.host('open')}/real/qcow2"
    workshop.push(workshop.image("real", {"etc/motd": os.urandom(16), "disk/disk.qcow2": qcow2}), source)
    assert await disk_of(source, over_http()) == ("disk/disk.qcow2", qcow2.read_bytes())
