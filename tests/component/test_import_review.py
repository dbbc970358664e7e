"""Small ways for an import to go wrong that were found by reading: each once, so that it does not come back."""

import asyncio
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.images import KINDS, used_in_place
from command import importing
from fakes import behaviours as bad
from fakes.badhttp import BadServer, Behaviour, Request, Wire
from fakes.webserver import Nginx
from tools import tree

from importer.api.failure import Failure
from importer.api.report import Progress
from importer.api.request import Access, ImportRequest
from importer.disk import qemu_img
from importer.disk.space import SpaceGuard
from importer.disk.target import Target
from importer.pipeline import nbd
from importer.pipeline.exports import FileExport
from importer.pipeline.meter import Meter
from importer.pipeline.patience import Policy
from importer.pipeline.pinned import Pinned
from importer.pipeline.room import Room
from importer.pipeline.run import run
from importer.pipeline.sequential import Sequential
from importer.sources.client import HttpPolicy
from importer.sources.http import HttpSource

DATA = os.urandom(3 << 20)
Get = Callable[..., Path]


class Silent:
    def progress(self, moment: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def nameless(data: bytes, drip_from: int) -> Behaviour:
    """Serve ranges without any validator; from request `drip_from` on a byte at a time."""

    async def behave(request: Request, wire: Wire) -> None:
        start, end = bad.span_of(request, len(data)) or (0, len(data))
        await wire.head(206, [("Content-Range", f"bytes {start}-{end - 1}/{len(data)}"), ("Content-Length", end - start)])
        step = 1 if request.number >= drip_from else end - start
        for at in range(start, end, step):
            await wire.send(data[at : at + step])
            await asyncio.sleep(0.05 if step == 1 else 0)

    return behave


def test_secrets_for_the_image_do_not_go_to_the_server_of_the_checksums(landing: Path, tmp_path: Path) -> None:
    secret = tmp_path / "auth"
    secret.write_text("Bearer hunter2-is-a-secret")
    sums = f"{hashlib.sha256(DATA).hexdigest()}  disk.img\n".encode()
    with BadServer(bad.honest(DATA)) as images, BadServer(bad.honest(sums)) as others:
        importing(images.url(), landing, "--auth-file", secret, "--checksum-url", others.url("SUMS")).succeeded()
        assert all("authorization" in request.headers for request in images.requests)
        assert others.requests
        assert not any("authorization" in request.headers for request in others.requests)


def test_the_query_of_a_checksum_url_is_not_repeated(landing: Path) -> None:
    with BadServer(bad.honest(DATA)) as images, BadServer(bad.honest(b"nothing\n")) as others:
        outcome = importing(images.url(), landing, "--checksum-url", others.url("SUMS?sig=hunter2-is-a-secret"))
    outcome.failed(65, "checksum-missing")
    assert "hunter2" not in outcome.said


async def test_a_signal_after_publishing_does_not_turn_success_into_failure(
    image: Get, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish, task = Target.publish, asyncio.current_task()
    assert task is not None

    def interrupted(target: Target) -> str:
        path = publish(target)
        task.cancel()
        return path

    monkeypatch.setattr(Target, "publish", interrupted)
    receipt = await run(ImportRequest(source=str(image("vhd-dynamic")), target=str(landing)), Silent())
    task.uncancel()
    assert receipt.versions["qemu-img"]
    assert tree(landing) == ["disk.img"]


async def test_a_tool_that_tells_no_version_leaves_no_target(image: Get, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def version() -> str:
        raise Failure("tool-failed", "no version")

    monkeypatch.setattr(qemu_img, "version", version)
    with pytest.raises(Failure):
        await run(ImportRequest(source=str(image("vhd-dynamic")), target=str(landing)), Silent())
    assert tree(landing) == []


async def test_a_disk_that_cannot_be_read_is_no_corrupt_image(image: Get, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read(export: FileExport, offset: int, length: int) -> nbd.Parts:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(FileExport, "read", read)
    with pytest.raises(Failure) as caught:
        await run(ImportRequest(source=str(image("vhd-dynamic")), target=str(landing)), Silent())
    assert caught.value.exit == 74
    assert tree(landing) == []


async def test_a_server_that_drips_is_cut_where_it_serves_no_ranges() -> None:
    async def behave(request: Request, wire: Wire) -> None:
        await wire.head(200, [("Content-Length", len(DATA))])
        await wire.send(DATA[: 2 << 20])
        for at in range(2 << 20, len(DATA)):
            await wire.send(DATA[at : at + 1])
            await asyncio.sleep(0.05)

    policy = Policy(stall_seconds=0.6, give_up_seconds=2.0, first_delay=0.01, longest_delay=0.02)
    with BadServer(behave) as server:
        source = await HttpSource.open(server.url(), Access())
        stream = Sequential(source, Meter(reporter=Silent()), capacity=8, pinned=Pinned(piece=1 << 20), policy=policy)
        with pytest.raises(Failure) as caught:
            await asyncio.wait_for(stream.run(), 20)
        await source.close()
    assert caught.value.code == "stalled"


async def test_a_server_that_drips_the_last_look_is_not_waited_for() -> None:
    with BadServer(nameless(DATA, drip_from=2)) as server:
        source = await HttpSource.open(server.url(), Access(), HttpPolicy(head_limit=1.0))
        assert b"".join([piece async for piece in source.fetch(0, 1000)]) == DATA[:1000]  # which tells no version
        with pytest.raises(Failure) as caught:
            await asyncio.wait_for(source.settle(), 10)
        await source.close()
    assert caught.value.code == "stalled"


def test_a_fixed_vhd_of_just_the_limit_is_taken(image: Get, landing: Path) -> None:
    served = image("vhd-fixed")
    importing(served, landing, "--max-size", str(served.stat().st_size - 512)).succeeded()


@pytest.mark.parametrize("first", [DATA[:1000]])
def test_judged_bytes_that_come_again_must_be_the_same(first: bytes) -> None:
    pinned = Pinned(piece=1 << 20)
    pinned.add(0, first)
    with pytest.raises(Failure) as caught:
        pinned.add(900, b"x" * 500)
    assert caught.value.code == "source-changed"


async def test_a_spill_keeps_the_reserve_free(image: Get, landing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(guard: SpaceGuard, size: int) -> None:
        raise Failure("no-space", "the reserve is reached", size=size)

    monkeypatch.setattr(SpaceGuard, "wrote", full)
    for scratch in (None, str(landing)):
        with pytest.raises(Failure) as caught:
            await run(ImportRequest(source=str(image("qcow2", "gzip")), target=str(landing), scratch_dir=scratch), Silent())
        assert caught.value.code == "no-space"
        assert tree(landing) == []


async def test_a_spill_that_cannot_fit_is_told_before_the_body(
    nginx: Nginx, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = used_in_place(KINDS["qcow2-extended"], nginx.folder / "no-room-for-a-spill", size=256 << 20, writes=120, chunk=1 << 20)
    monkeypatch.setattr(Room, "at", lambda directory, _reserve: Room(directory=directory, free=1 << 20, reserve=0))
    with pytest.raises(Failure) as caught:
        await run(ImportRequest(source=nginx.url(used.name), target=str(landing)), Silent())
    assert caught.value.code == "no-space"
    assert tree(landing) == []
