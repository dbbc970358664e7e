"""The disk inside a container image, all the way to a raw disk."""

import subprocess
from pathlib import Path

import pytest
from builders import content, layouts
from builders.container_images import Workshop
from command import Running, importing, slipstream
from fakes.docker_registry import DockerRegistry
from tools import needs, tree

RAW = content.seeded(6 << 20, 41)
OTHER = content.seeded(1 << 20, 42)


@pytest.fixture(scope="module")
def qcow2(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    needs("qemu-img")
    folder = tmp_path_factory.mktemp("qcow2")
    (folder / "raw").write_bytes(RAW)
    words = ["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", str(folder / "raw"), str(folder / "image")]
    subprocess.run(words, check=True, timeout=60)
    return (folder / "image").read_bytes()


@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_raw_disk_comes_out_of_a_layer(compression: str, tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.img": RAW}), compression=compression)
    outcome = importing(name, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW
    assert any("verified: the layer is sha256:" in note for note in outcome.receipt["notes"])


@pytest.mark.parametrize("compression", ["", "gzip"])
def test_an_image_that_must_seek_is_put_aside(compression: str, qcow2: bytes, tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.qcow2": qcow2}), compression=compression)
    outcome = importing(name, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW
    assert outcome.receipt["bytes_spilled"] == len(qcow2)
    assert outcome.receipt["format"] == "qcow2"


def test_a_wrapped_disk_in_a_layer_is_unwrapped(tmp_path: Path, landing: Path) -> None:
    wrapped = subprocess.run(["gzip", "-c"], input=RAW, stdout=subprocess.PIPE, check=True, timeout=60).stdout
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.img.gz": wrapped}))
    importing(name, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


def test_the_disk_may_lie_in_a_lower_layer_beside_other_files(tmp_path: Path, landing: Path) -> None:
    lower = layouts.packed({"etc/passwd": OTHER, "disk/disk.img": RAW, "usr/lib": OTHER})
    name = layouts.write(tmp_path / "image", lower, layouts.packed({"etc/motd": OTHER}))
    importing(name, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


def test_the_uppermost_disk_counts(tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/a.img": OTHER}), layouts.packed({"disk/b.img": RAW}))
    importing(name, landing).succeeded()
    assert (landing / "disk.img").read_bytes() == RAW


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"etc/passwd": OTHER}, "disk-missing"),
        ({"disk/a.img": RAW, "disk/b.img": OTHER}, "several-disks"),
        ({"disk/index.html": b"<html><body>no disk</body></html>"}, "not-a-disk"),
        ({"../disk/a.img": RAW}, "unsafe"),
    ],
)
def test_what_is_no_image_of_a_disk_is_refused(files: dict[str, bytes], code: str, tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed(files))
    importing(name, landing).failed(65, code)
    assert tree(landing) == []


@pytest.mark.parametrize(
    ("spoil", "compression"), [("flip", ""), ("flip", "gzip"), ("cut", ""), ("cut", "gzip"), ("flip", "zstd")]
)
def test_a_spoilt_layer_leaves_nothing(spoil: str, compression: str, tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.img": RAW}), compression=compression, spoil=spoil)
    importing(name, landing).failed(65, "checksum-mismatch", "corrupt", "truncated")
    assert tree(landing) == []


def test_inspect_looks_into_the_layer(qcow2: bytes, tmp_path: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.qcow2": qcow2}))
    outcome = slipstream("inspect", name).succeeded()
    assert "qcow2" in outcome.out
    assert "6.0 MiB" in outcome.out


def test_a_promise_is_about_the_file_in_the_layer(tmp_path: Path, landing: Path) -> None:
    name = layouts.write(tmp_path / "image", layouts.packed({"disk/disk.img": RAW}))
    importing(name, landing, "--checksum", f"sha256:{'1' * 64}").failed(65, "checksum-mismatch")
    assert tree(landing) == []


def test_a_real_registry_brings_the_disk(
    qcow2: bytes, workshop: Workshop, registry: DockerRegistry, tmp_path: Path, landing: Path
) -> None:
    needs("buildah")
    (tmp_path / "registries.conf").write_text("")
    image = workshop.image("whole-way", {"disk/disk.qcow2": qcow2})
    source = f"docker://{registry.host('open')}/whole/way"
    workshop.push(image, source)
    env = {"CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"), "HOME": str(tmp_path)}
    with Running("import", source, landing, "--insecure", env=env) as running:
        outcome = running.finish().succeeded()
    assert (landing / "disk.img").read_bytes() == RAW
    assert "verified: the layer is sha256:" in outcome.err
