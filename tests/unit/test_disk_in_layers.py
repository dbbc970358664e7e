"""Which file of an image is the disk: one layer, several, whiteouts, tricks; tars by real tools."""

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from importer.api.failure import Failure
from importer.disk.tar import Hidden, LayerScan, clean, missing
from machinery.values.tar import Member


def layer(*names: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"disk", dialect: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else kind
            info.linkname = "elsewhere" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            info.size = len(content) if info.isreg() and "/.wh." not in f"/{name}" else 0
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def search(*layers: bytes) -> Member | str:
    """Return the disk, or the code of the failure; layers from the uppermost down."""
    above, found, members = Hidden(), (), 0
    try:
        for data in layers:
            scan = LayerScan(above)
            for at in range(0, len(data), 700):
                scan.feed(data[at : at + 700])
            scan.end()
            if scan.disk is not None:
                return scan.disk
            above, found, members = scan.hidden, (*found, *scan.found()), members + scan.members
        raise missing(found, members)
    except Failure as failure:
        return failure.code


def name(found: Member | str) -> str:
    return found.name if isinstance(found, Member) else found


@pytest.mark.parametrize("spelling", ["disk/a.img", "./disk/a.img", "/disk/a.img", "disk//a.img", "././disk/./a.img"])
def test_the_file_below_disk_is_the_disk_however_its_path_is_spelled(spelling):
    data = layer("./", "etc/passwd", "disk/", spelling)
    found = search(data)
    assert isinstance(found, Member)
    assert found.name == "disk/a.img"
    assert data[found.offset : found.offset + found.size] == b"disk"


def test_it_may_lie_deeper_and_have_a_long_name():
    for dialect in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        assert name(search(layer("disk/sub/" + "a" * 95, dialect=dialect))) == "disk/sub/" + "a" * 95
    assert name(search(layer("disk/" + "ü" * 400, dialect=tarfile.PAX_FORMAT))) == "disk/" + "ü" * 400


@pytest.mark.parametrize("other", ["disk", "disks/a.img", "disk.img", "a/disk/b.img", "diskette"])
def test_files_elsewhere_are_no_disks(other):
    assert search(layer(other)) == "disk-missing"


def test_two_in_one_layer_are_refused_though_the_second_comes_last():
    assert search(layer("disk/a.img", "etc/passwd", "disk/b.img")) == "several-disks"
    assert search(layer("disk/a.img", "./disk/a.img")) == "several-disks"


def test_the_uppermost_layer_that_has_one_wins():
    assert name(search(layer("etc/x"), layer("disk/new.img"), layer("disk/old.img"))) == "disk/new.img"
    assert name(search(layer("etc/x"), layer("disk/"), layer("disk/old.img"))) == "disk/old.img"


@pytest.mark.parametrize(
    "upper",
    ["disk/.wh.a.img", "./disk/.wh.a.img", ".wh.disk", "disk/.wh..wh..opq", "./.wh..wh..opq", "/.wh.disk", "disk"],
)
def test_what_a_layer_above_hides_is_no_disk(upper):
    assert search(layer(upper), layer("disk/a.img")) == "disk-missing"
    assert search(layer(upper), layer("etc/x"), layer("disk/a.img")) == "disk-missing"


@pytest.mark.parametrize(
    "upper", ["disk/.wh.b.img", ".wh.diskette", "etc/.wh.disk", "etc/.wh..wh..opq", "disk/.wh.a", "disk/sub/.wh.a.img"]
)
def test_whiteouts_of_other_things_hide_nothing(upper):
    assert name(search(layer(upper), layer("disk/a.img"))) == "disk/a.img"


def test_a_directory_that_is_hidden_takes_all_below_it_along():
    for upper in ("disk/.wh.sub", "disk/sub/.wh..wh..opq", "disk/sub"):
        kind = tarfile.SYMTYPE if upper == "disk/sub" else tarfile.REGTYPE
        assert search(layer(upper, kind=kind), layer("disk/sub/deep/a.img")) == "disk-missing"


def test_a_directory_takes_the_place_of_a_file_but_keeps_what_it_holds():
    assert search(layer("disk/a.img/"), layer("disk/a.img")) == "disk-missing"
    assert name(search(layer("disk/a.img/"), layer("disk/a.img/b"))) == "disk/a.img/b"


def test_a_whiteout_hides_nothing_of_its_own_layer():
    assert name(search(layer("disk/.wh..wh..opq", "disk/a.img"), layer("disk/old.img"))) == "disk/a.img"
    assert name(search(layer("disk/a.img", ".wh.disk"), layer("disk/old.img"))) == "disk/a.img"


def test_one_of_two_below_may_be_hidden_so_that_the_other_is_the_disk():
    assert name(search(layer("disk/.wh.a.img"), layer("disk/a.img", "disk/b.img"))) == "disk/b.img"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_no_disks_and_hide_what_lies_below(kind):
    assert search(layer("disk/a.img", kind=kind)) == "disk-missing"
    assert search(layer("disk/a.img", kind=kind), layer("disk/a.img")) == "disk-missing"


def test_what_was_found_instead_is_told_without_control_characters():
    scan = LayerScan()
    scan.feed(layer("etc/\x1b[31mred", "disk/a.img", kind=tarfile.SYMTYPE))
    told = missing(scan.found(), scan.members).render()
    assert "disk/a.img (symbolic link to elsewhere)" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("trick", ["../disk/a.img", "disk/../etc/passwd", "x/../disk/a.img", "disk/.."])
def test_paths_that_lead_elsewhere_are_refused(trick):
    assert search(layer(trick)) == "unsafe"


@settings(max_examples=200, deadline=None)
@given(text=st.text("ab./\0", max_size=30))
def test_a_clean_path_has_no_idle_and_no_climbing_parts(text):
    if ".." in text.split("/") or "\0" in text:
        with pytest.raises(Failure, match="leads elsewhere"):
            clean(text)
        return
    path = clean(text)
    assert all(part not in ("", ".", "..") for part in path.split("/")) or path == ""
    assert clean("./" + path) == path


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=1600))
def test_any_bytes_end_in_a_failure_of_the_catalogue(data):
    assert search(data) in {"corrupt", "truncated", "unsafe", "unsupported", "disk-missing"}
