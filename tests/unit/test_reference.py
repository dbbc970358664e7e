"""Names of container images, as people write them and as they are looked up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.sources.origin import has_userinfo
from importer.sources.reference import Archive, Layout, Reference, in_registry, is_image, parse, plain_host, server

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("user/alpine", "docker.io/user/alpine:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/user/alpine:1", "docker.io/user/alpine:1"),
        ("registry-1.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("quay.io/containerdisks/fedora:40", "quay.io/containerdisks/fedora:40"),
        ("localhost/disk", "localhost/disk:latest"),
        ("localhost:5000/disk", "localhost:5000/disk:latest"),
        ("host:5000/a/b/c:Tag_1.x", "host:5000/a/b/c:Tag_1.x"),
        ("EXAMPLE.com/disk", "example.com/disk:latest"),
        ("Host/disk", "host/disk:latest"),
        ("127.0.0.1:05000/disk", "127.0.0.1:5000/disk:latest"),
        ("[::1]:5000/disk:x", "[::1]:5000/disk:x"),
        ("[0:0::1]/disk", "[::1]/disk:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"quay.io/a/b:1.0@{DIGEST}", f"quay.io/a/b@{DIGEST}"),
        (f"host/disk@sha512:{HEX}{HEX}", f"docker.io/host/disk@sha512:{HEX}{HEX}"),
        ("a.b/c__d/e-f/g--h.i", "a.b/c__d/e-f/g--h.i:latest"),
    ],
)
def test_names_have_one_full_spelling(written, shown):
    assert parse(f"docker://{written}").shown == f"docker://{shown}"


@pytest.mark.parametrize(
    "written",
    [
        "", "/", ":", "Alpine", "host:5000/", "quay.io/", "quay.io/A", "quay.io/a//b", "quay.io/a/", "quay.io/-a",
        "quay.io/a..b", "quay.io/a___b", "quay.io/a:", "quay.io/a:-x", f"quay.io/a:{'x' * 129}", "quay.io/a@sha256:abc",
        f"quay.io/a@md5:{HEX[:32]}",
        f"quay.io/a@SHA256:{HEX}", f"quay.io/a@sha256:{HEX.upper()}", f"quay.io/a@{DIGEST}x", "host:0/a", "host:65536/a",
        "host:/a",
        "[::1/a", "[x]/a", "-host.x/a", "a b/c", "quay.io/a?x=1", "quay.io/a#b", "quay.io/../a", "quay.io/a%2fb",
        "ho_\u00fc.st/a",
        "quay.io/a\n", "quay.io/a:b\n", f"quay.io/{'a' * 256}",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(written):
    with pytest.raises(Failure) as caught:
        parse(f"docker://{written}")
    assert caught.value.code == "usage"
    assert "\n  what to do" in caught.value.render()


def test_user_information_is_refused_and_a_digest_is_none():
    for written in ("docker://user:hunter2@quay.io/a", "docker://user@quay.io/a"):
        assert has_userinfo(written)
        with pytest.raises(Failure) as caught:
            parse(written)
        assert caught.value.code == "secret-in-argv"
        assert "hunter2" not in caught.value.render()
    assert not has_userinfo(f"docker://alpine@{DIGEST}")
    assert has_userinfo(f"docker://user:{DIGEST}@quay.io/a")


def test_layouts_and_archives_end_at_the_first_colon():
    assert parse("oci-layout:/a/b") == Layout(directory="/a/b")
    assert parse("oci-layout:dir:1.0") == Layout(directory="dir", pointer="1.0")
    assert parse("oci-layout:dir:quay.io/a/b:1.0") == Layout(directory="dir", pointer="quay.io/a/b:1.0")
    assert parse(f"oci-layout:dir@{DIGEST}") == Layout(directory="dir", pointer=DIGEST)
    assert parse(f"oci-layout:dir@{DIGEST}").shown == f"oci-layout:dir@{DIGEST}"
    assert parse("oci-layout:d@x/e") == Layout(directory="d@x/e")
    assert parse("docker-archive:a.tar") == Archive(path="a.tar")
    assert parse("docker-archive:a.tar:demo/disk:1") == Archive(path="a.tar", pointer="demo/disk:1")
    for bad in ("oci-layout:", "docker-archive::x", "oci-layout:a\0b", "https://x/"):
        with pytest.raises(Failure, match=r"path|not the name"):
            parse(bad)


def test_only_three_beginnings_are_images():
    assert is_image("docker://a")
    assert is_image("oci-layout:a")
    assert is_image("docker-archive:a")
    assert not any(map(is_image, ("https://docker.io/a", "a", "./docker:a", "Docker://a", "s3://a/b")))


def test_docker_hub_is_asked_at_its_server():
    assert server("docker.io") == "registry-1.docker.io"
    assert server("quay.io:443") == "quay.io:443"


@given(st.text(max_size=60))
def test_any_text_is_a_name_or_a_failure_and_a_name_spells_itself(text):
    try:
        found = in_registry(text)
    except Failure as failure:
        found = failure
    if isinstance(found, Failure):
        assert found.code in {"usage", "secret-in-argv"}
    else:
        assert parse(found.shown) == Reference(
            host=found.host, repository=found.repository, tag=None if found.digest else found.tag, digest=found.digest
        )


@given(st.from_regex(r"(\[[0-9a-f:]{2,9}\]|[a-zA-Z0-9.-]{1,12})(:[0-9]{1,5})?", fullmatch=True))
def test_hosts_have_one_spelling(text):
    found = plain_host(text)
    assert found is None or plain_host(found) == found
