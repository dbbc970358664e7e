"""Every file of tests/hostile ends with its code and 65, leaves nothing, and reaches nothing outside itself."""

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import Outcome, importing, slipstream
from fakes.webserver import Nginx
from tools import tree

from importer.api.failure import CATALOGUE, Exit

MODULES = sorted(path.stem for path in (Path(__file__).parent.parent / "hostile").glob("*_files.py"))
FILES = [file for module in MODULES for file in importlib.import_module(f"hostile.{module}").FILES]
BY_NAME = pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)

OVER_HTTP = "test_over_http_it_is_refused"
Refusal = tuple[Outcome, list[str]]
"""What an import said, and what it left in its target's directory."""


class Canary:
    """Listens at a port that images name; a connection means that somebody followed the image's wish."""

    def __init__(self) -> None:
        self.calls = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port: int = self._listener.getsockname()[1]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._over.set()
        self._thread.join(5)
        self._listener.close()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                caller, _ = self._listener.accept()
            except TimeoutError:
                continue
            self.calls += 1
            caller.close()


@pytest.fixture
def canary() -> Iterator[Canary]:
    """A port that must not be called."""
    listener = Canary()
    try:
        yield listener
    finally:
        listener.close()


def test_there_are_enough_of_them_and_no_two_of_a_name() -> None:
    names = [file.name for file in FILES]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    assert {CATALOGUE[file.code].exit for file in FILES} == {Exit.DATA}


@pytest.fixture(scope="module")
def refusals(request: pytest.FixtureRequest, nginx: Nginx, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """What became of every file that is going to be asked for: hundreds of processes, so as many at a time as there are cores."""
    wanted = {item.callspec.params["file"].name for item in request.session.items if item.originalname == OVER_HTTP}

    def attempt(file) -> Refusal:
        landing = tmp_path_factory.mktemp("landing")
        served = nginx.folder / f"hostile-{file.name}"
        served.write_bytes(file.build())
        outcome = importing(nginx.url(served.name), landing / "disk.img", timeout=60)
        served.unlink()
        return outcome, tree(landing)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = [file for file in FILES if file.name in wanted]
        return dict(zip((file.name for file in chosen), pool.map(attempt, chosen), strict=True))


@pytest.mark.timeout(600)  # the first one waits for all
@BY_NAME
def test_over_http_it_is_refused(file, refusals: dict[str, Refusal]) -> None:
    outcome, left = refusals[file.name]
    outcome.failed(65, file.code)
    assert left == []


@pytest.mark.parametrize("file", FILES[::12], ids=lambda file: file.name)
def test_from_a_local_file_it_is_refused(file, landing: Path, tmp_path: Path) -> None:
    path = tmp_path / "hostile.img"
    path.write_bytes(file.build())
    importing(path, landing / "disk.img").failed(65, file.code)
    assert tree(landing) == []


@pytest.mark.parametrize("file", FILES[2::12], ids=lambda file: file.name)
def test_inspecting_it_ends_in_words_and_never_in_a_traceback(file, nginx: Nginx) -> None:
    served = nginx.folder / f"inspected-{file.name}"
    served.write_bytes(file.build())
    outcome = slipstream("inspect", nginx.url(served.name), "--json")
    assert outcome.exit in (0, 65), outcome.said  # what only the tables show, inspect need not read
    assert "Traceback" not in outcome.err
    served.unlink()


@pytest.mark.parametrize(
    "reference",
    [
        "nbd://127.0.0.1:{port}/export",
        "http://127.0.0.1:{port}/base.img",
        "nbd:127.0.0.1:{port}",
        'json:{{"driver":"nbd","host":"127.0.0.1","port":"{port}"}}',
        'json:{{"driver":"raw","file":{{"driver":"http","url":"http://127.0.0.1:{port}/x"}}}}',
        "{canary}",
    ],
)
@pytest.mark.parametrize("place", ["backing-file", "data-file"])
def test_a_reference_is_never_followed(
    place: str, reference: str, canary: Canary, nginx: Nginx, landing: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    name = reference.format(port=canary.port, canary=secret).encode()
    served = nginx.folder / "referring.qcow2"
    served.write_bytes(_qcow2_naming(name, place))
    outcome = importing(nginx.url(served.name), landing / "disk.img")
    outcome.failed(65, "unsafe")
    assert tree(landing) == []
    assert canary.calls == 0


def _qcow2_naming(name: bytes, place: str) -> bytes:
    """Return a qcow2 image of 1 MiB that names another file and is otherwise empty and right."""
    backing = place == "backing-file"
    extension = b"" if backing else b"DATA" + len(name).to_bytes(4, "big") + name + bytes(-len(name) % 8)
    at = 112 + len(extension)
    head = b"QFI\xfb" + (3).to_bytes(4, "big")
    head += (at if backing else 0).to_bytes(8, "big") + (len(name) if backing else 0).to_bytes(4, "big")
    head += (16).to_bytes(4, "big") + (1 << 20).to_bytes(8, "big") + bytes(4)
    head += (1).to_bytes(4, "big") + (3 << 16).to_bytes(8, "big")  # L1
    head += (1 << 16).to_bytes(8, "big") + (1).to_bytes(4, "big") + bytes(12)  # refcounts, snapshots
    head += (0 if backing else 4).to_bytes(8, "big") + bytes(16) + (4).to_bytes(4, "big") + (112).to_bytes(4, "big") + bytes(8)
    head += extension + (bytes(8) + name if backing else bytes(8))
    refcounts = (2 << 16).to_bytes(8, "big").ljust(1 << 16, b"\0")
    block = b"".join((1).to_bytes(2, "big") for _ in range(4)).ljust(1 << 16, b"\0")
    return head.ljust(1 << 16, b"\0") + refcounts + block + bytes(1 << 16)


def test_a_vmdk_descriptor_that_names_a_file_is_refused(nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 100_000)
    served = nginx.folder / "descriptor.vmdk"
    served.write_text(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW 1024 FLAT "{secret}" 0\nddb.adapterType = "ide"\n'
    )
    importing(nginx.url(served.name), landing / "disk.img").failed(65, "not-a-disk", "unsafe", "unsupported")
    assert tree(landing) == []
