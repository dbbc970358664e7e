"""A qemu-img that neither ends nor gets on is given up; one that is slow, or waits for us, is not."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import importing
from fakes.webserver import Nginx
from tools import tree

from importer.api.failure import Failure
from importer.disk import qemu_img
from importer.disk.image import Format
from importer.disk.target import Target
from importer.disk.tool_part import ToolPart
from machinery.process import confine

Get = Callable[..., Path]
SPINS = "while :; do :; done"
SLEEPS = "exec sleep 1000"
PLODS = "i=0; while [ $i -lt 12 ]; do i=$((i+1)); echo $i; sleep 0.4; done"


@pytest.fixture
def shelf() -> Iterator[Path]:
    """A directory that user nobody can search, for tools of ours."""
    with tempfile.TemporaryDirectory(prefix="tools-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def instead(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Put a shell script in the place of qemu-img; return the PATH that leads to it."""

    def put(script: str) -> str:
        tool = shelf / "qemu-img"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        path = f"{shelf}:{os.environ['PATH']}"
        monkeypatch.setenv("PATH", path)
        return path

    return put


FREE = confine.Confinement()


async def convert(
    landing: Path, *, held: Callable[[], bool] = lambda: False, confinement: confine.Confinement | None = FREE
) -> None:
    """Run the tool, giving it up after two seconds."""
    pulse = qemu_img.Pulse(served=lambda: 0, held=held, give_up_seconds=2.0)
    with Target.open(str(landing / "disk"), force=False) as target:
        async with asyncio.timeout(30):
            await qemu_img.convert(
                format=Format.VHD, nbd_fd=target.fd, part=ToolPart(fd=target.fd), compressed=False, direct=False, pulse=pulse,
                confinement=confinement,
            )  # fmt: skip


@pytest.mark.parametrize("script", [SPINS, SLEEPS], ids=["spins", "sleeps"])
async def test_a_tool_that_does_nothing_is_given_up(script: str, instead: Callable[[str], str], landing: Path) -> None:
    instead(script)
    with pytest.raises(Failure) as caught:
        await convert(landing)
    assert (caught.value.code, int(caught.value.exit)) == ("tool-failed", 70)
    assert tree(landing) == []


@pytest.mark.parametrize("confinement", [FREE, None], ids=["free", "as strictly confined as can be"])
async def test_a_tool_that_moves_a_few_bytes_at_a_time_is_waited_for(
    confinement: confine.Confinement | None, instead: Callable[[str], str], landing: Path
) -> None:
    instead(PLODS)
    await convert(landing, confinement=confinement)


async def test_a_tool_that_waits_for_a_fetch_is_waited_for(instead: Callable[[str], str], landing: Path) -> None:
    instead("exec sleep 4")
    await convert(landing, held=lambda: True)


def test_an_import_whose_tool_spins_ends_and_leaves_nothing(
    instead: Callable[[str], str], image: Get, nginx: Nginx, landing: Path
) -> None:
    served = image("vhd-dynamic")
    path = instead(SPINS)
    outcome = importing(nginx.url(served.name), landing, env={"PATH": path, "SLIPSTREAM_GIVE_UP_SECONDS": "2"}, timeout=30)
    outcome.failed(70, "tool-failed")
    assert tree(landing) == []
