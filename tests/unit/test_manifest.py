"""Manifests, indexes, configurations and platforms: what is read, what is refused by its name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.image import Wrapper
from importer.sources import manifest, platform
from importer.sources.manifest import Index, Manifest, complaint, compression_of, digest_of, parse, verified
from importer.sources.platform import Platform, choose, of_machine

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution."
DIGEST = digest_of(b"")
ENDS = {"protocol", "corrupt", "unsupported", "unsafe", "wrong-platform"}


def described(media_type: str = f"{OCI}layer.v1.tar+gzip", **more: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 5, **more}


def image(*layers: dict[str, object], **more: object) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "config": described(f"{OCI}config.v1+json"), "layers": layers or (described(),), **more}
    ).encode()


def index(*names: str | None, **more: object) -> bytes:
    entries = []
    for name in names:
        parts = (*(name or "").split("/"), "", "")
        told = {"platform": {"os": parts[0], "architecture": parts[1], "variant": parts[2]}} if name else {}
        entries.append(described(f"{OCI}manifest.v1+json", **told))
    return json.dumps({"schemaVersion": 2, "manifests": entries, **more}).encode()


def refused(data: bytes, content_type: str = "") -> Failure:
    with pytest.raises(Failure) as caught:
        parse(data, content_type)
    return caught.value


@pytest.mark.parametrize(
    ("media_type", "compression"),
    [
        (f"{OCI}layer.v1.tar", ""), (f"{OCI}layer.v1.tar+gzip", "gzip"), (f"{OCI}layer.v1.tar+zstd", "zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip"), ("application/vnd.docker.image.rootfs.diff.tar", ""),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip"),
    ],
)  # fmt: skip
def test_layers_tell_their_compression(media_type, compression):
    found = parse(image(described(media_type)))
    assert isinstance(found, Manifest)
    assert found.layers[0].compression == compression
    assert not compression or Wrapper(compression)  # the pipeline's own word for it


def test_the_urls_of_a_layer_are_nowhere_in_what_is_read():
    found = parse(image(described("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://evil.example/"])))
    assert "evil" not in repr(found)


def test_kinds_that_cannot_be_used_are_refused_by_name():
    old = refused(json.dumps({"schemaVersion": 1, "mediaType": f"{DOCKER}manifest.v1+prettyjws", "fsLayers": []}).encode())
    assert (old.code, "schema 1" in old.cause) == ("unsupported", True)
    helm = refused(
        json.dumps({"schemaVersion": 2, "config": described("application/vnd.cncf.helm.config.v1+json"), "layers": []}).encode()
    )
    assert (helm.code, helm.evidence["artifact"]) == ("unsupported", "application/vnd.cncf.helm.config.v1+json")
    artifact = refused(image(artifactType="application/x-disk"))
    assert (artifact.code, artifact.evidence["artifact"]) == ("unsupported", "application/x-disk")
    odd = refused(image(described("application/octet-stream")))
    assert (odd.code, odd.evidence["media_type"]) == ("unsupported", "application/octet-stream")
    secret = refused(image(described(f"{OCI}layer.v1.tar+gzip+encrypted")))
    assert secret.code == "unsupported"
    assert refused(image(annotations={"containers.bootc": "1"})).code == "unsupported"


def test_a_document_that_is_both_image_and_index_is_refused():
    both = json.loads(image()) | json.loads(index("linux/amd64"))
    assert refused(json.dumps(both).encode()).code == "corrupt"
    assert refused(image(mediaType=f"{OCI}index.v1+json")).code == "corrupt"
    assert refused(index("linux/amd64", mediaType=f"{DOCKER}manifest.v2+json")).code == "corrupt"


def test_a_web_page_is_called_one():
    page = refused(b"<!DOCTYPE html><html><body>Log in to the hotel's network", "text/html; charset=utf-8")
    assert (page.code, "HTML page" in page.cause) == ("protocol", True)
    assert refused(b"\x1b[31m\x00\xff", "application/json").code == "protocol"


@pytest.mark.parametrize(
    "layer",
    [
        described(digest="sha256:../../etc/passwd"), described(digest="md5:" + "0" * 32), described(digest=5), described(size=-1),
        described(size=True), described(size=1.5), described(size="5"), described(size=1 << 60), {"digest": DIGEST},
    ],
)  # fmt: skip
def test_digests_and_sizes_that_are_none_are_refused(layer):
    assert refused(image(layer)).code == "corrupt"


def test_limits_hold():
    assert refused(b"[" * (manifest.MOST_BYTES + 1)).code == "unsafe"
    assert refused(image(*[described()] * (manifest.MOST_LAYERS + 1))).code == "unsafe"
    assert refused(index(*["linux/amd64"] * (manifest.MOST_ENTRIES + 1))).code == "unsafe"
    assert refused(b"[" * 1_000_000).code == "protocol"
    assert refused(b'{"schemaVersion": ' + b"9" * 10_000 + b"}").code == "protocol"


FIELDS = "schemaVersion mediaType manifests layers config digest size platform os annotations errors rootfs diff_ids Labels"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS.split()), inner, max_size=6),
    max_leaves=20,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_any_json_ends_in_a_document_or_a_failure(value):
    data = json.dumps(value).encode()
    complaint(data)
    for read in (parse, manifest.config, manifest.layout_version):
        try:
            read(data)
        except Failure as failure:
            code = failure.code
        else:
            code = "corrupt"
        assert code in ENDS


def test_documents_are_verified_by_digest_and_length():
    for algorithm in ("sha256", "sha512"):
        assert verified(b"x", digest_of(b"x", algorithm), 1) == b"x"
    for size, digest in ((1, digest_of(b"y")), (2, digest_of(b"x"))):
        with pytest.raises(Failure) as caught:
            verified(b"x", digest, size)
        assert caught.value.code == "checksum-mismatch"


def test_the_plain_variant_comes_first_and_a_named_one_must_be_there():
    there = tuple(
        map(platform.parse, ("linux/arm/v6", "linux/arm/v7", "linux/arm64", "linux/amd64/v3", "linux/amd64", "windows/amd64"))
    )
    for wanted, place in {
        "linux/arm": 1, "linux/arm/v6": 0, "linux/arm64": 2, "linux/arm64/v8": 2, "linux/amd64": 4, "linux/amd64/v3": 3,
        "windows/amd64": 5, "linux/amd64/v1": 4,
    }.items():  # fmt: skip
        assert choose(there, platform.parse(wanted)) == place
    with pytest.raises(Failure) as caught:
        choose((*there, Platform(os="unknown", architecture="unknown")), platform.parse("linux/s390x"))
    assert caught.value.code == "wrong-platform"
    assert caught.value.evidence == {
        "wanted": "linux/s390x",
        "there_are": "linux/amd64, linux/amd64/v3, linux/arm/v6, linux/arm/v7, linux/arm64, windows/amd64",
    }


def test_an_index_is_chosen_from_by_platform():
    found = parse(index("linux/arm64", "linux/amd64"))
    assert isinstance(found, Index)
    assert found.chosen(Platform(os="linux", architecture="amd64")).platform == Platform(os="linux", architecture="amd64")
    only = parse(index(None))
    assert isinstance(only, Index)
    assert only.chosen(Platform(os="linux", architecture="s390x")).platform is None


def test_this_machine_has_a_platform():
    assert str(of_machine("x86_64")) == "linux/amd64"
    assert str(of_machine("aarch64")) == "linux/arm64"
    assert str(of_machine("armv7l")) == "linux/arm/v7"
    assert str(of_machine("../Odd")) == "linux/odd"
    for bad in ("", "linux", "linux/", "linux/a/b/c", "Linux/amd64", "linux/amd64\n"):
        with pytest.raises(ValueError, match="no platform"):
            platform.parse(bad)


def test_a_configuration_tells_platform_and_decoded_digests():
    data = {
        "os": "linux",
        "architecture": "arm64",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        "config": {"Labels": {"a": "1"}},
    }
    found = manifest.config(json.dumps(data).encode())
    assert (str(found.platform), found.diff_ids) == ("linux/arm64", (DIGEST,))
    assert manifest.config(b"{}") == manifest.Config(platform=None, diff_ids=())
    for label in ("containers.bootc", "ostree.bootable"):
        with pytest.raises(Failure, match="bootable container"):
            manifest.config(json.dumps({"config": {"Labels": {label: "1"}}}).encode())


def test_what_registries_complain_of_is_read():
    assert complaint(b'{"errors":[{"code":"DENIED","message":"no"},{"code":"X"}]}') == "DENIED: no; X: "
    assert [complaint(data) for data in (b"", b"[]", b"{}", b'{"errors": 5}', b'{"errors": [5]}', b"\xff")] == [""] * 6


def test_compression_is_told_from_the_first_bytes():
    assert compression_of(b"\x1f\x8b\x08") == "gzip"
    assert compression_of(b"\x28\xb5\x2f\xfd") == "zstd"
    assert compression_of(b"\x50\x2a\x4d\x18") == "zstd"
    assert compression_of(b"disk/\0\0\0") == ""
