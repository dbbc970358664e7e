import pytest

from importer.api.failure import Failure
from importer.pipeline.promises import find

A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    "text",
    [
        f"{A}  disk.img\n{B}  other.img\n",
        f"{A} *disk.img",
        f"{A}  ./disk.img",
        f"SHA256 (disk.img) = {A}",
        f"{A.upper()}  images/disk.img",
    ],
)
def test_gnu_and_bsd_lines_are_found_by_file_name(text: str) -> None:
    assert find(text, "disk.img").hex == A


def test_the_strongest_of_several_algorithms_counts() -> None:
    text = f"MD5 (disk.img) = {'c' * 32}\nSHA256 (disk.img) = {A}\n"
    assert find(text, "disk.img").algorithm == "sha256"


@pytest.mark.parametrize(
    "text", ["", f"{A}  other.img", f"{A}  disk.img\n{B}  disk.img", "<html>not found</html>", f"{A[:-1]}  disk.img"]
)
def test_a_missing_or_contradictory_line_is_a_named_failure(text: str) -> None:
    with pytest.raises(Failure) as caught:
        find(text, "disk.img", "https://example.org/SHA256SUMS")
    assert caught.value.code == "checksum-missing"
