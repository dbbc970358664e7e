"""Inspection stays within its bounds whatever the server does, and claims no more than it knows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import content, images
from command import Outcome, slipstream
from fakes import behaviours as bad
from fakes.badhttp import BadServer, Behaviour, Request, Wire
from fakes.webserver import Nginx

Get = Callable[..., Path]
MIB = 1 << 20
MOST_REQUESTS = 8
HASTE = {"SLIPSTREAM_STALL_SECONDS": "1", "SLIPSTREAM_GIVE_UP_SECONDS": "4"}


def behind(redirects: int, behave: Behaviour, *, busy: int = 0) -> Behaviour:
    """Redirect so many times; answer 503 the first `busy` times behind that."""

    async def behaviour(request: Request, wire: Wire) -> None:
        nonlocal busy
        hop = int(request.path.rpartition("-")[2]) if "-" in request.path else 0
        if hop < redirects:
            await wire.answer(302, b"", ("Location", f"/hop-{hop + 1}"))
        elif busy:
            busy -= 1
            await wire.answer(503, b"", ("Retry-After", 0))
        else:
            await behave(request, wire)

    return behaviour


def compressed(raw: Path, wrapper: str) -> bytes:
    """Compress a file by its name: then zstd states its size."""
    suffix = {"gzip": "gz", "xz": "xz", "zstd": "zst"}[wrapper]
    images.run([wrapper, "-q", "-k", raw])
    return raw.with_name(f"{raw.name}.{suffix}").read_bytes()


def inspected(server: BadServer, *options: str) -> Outcome:
    return slipstream("inspect", server.url(), "--json", *options, env=HASTE)


def told(outcome: Outcome) -> dict[str, object]:
    assert outcome.exit == 0, outcome.said
    found: dict[str, object] = json.loads(outcome.out)
    return found


@pytest.mark.parametrize(("redirects", "busy"), [(0, 0), (3, 0), (5, 0), (0, 3), (2, 1)])
def test_redirects_and_retries_count(redirects: int, busy: int, image: Get) -> None:
    data = image("qcow2").read_bytes()
    with BadServer(behind(redirects, bad.honest(data), busy=busy)) as server:
        found = told(inspected(server))
    assert found["format"] == "qcow2"
    assert found["requests"] == len(server.requests)
    assert len(server.requests) <= MOST_REQUESTS


@pytest.mark.parametrize(
    "behave",
    [
        lambda data: behind(5, bad.honest(data), busy=3),
        lambda data: behind(5, bad.truncating(data, 70_000)),
        lambda data: bad.truncating(data, 0, 10**6),
        lambda data: bad.stalling(data, 0, first=1),
    ],
    ids=["far away and busy", "far away and cutting", "cutting", "silent"],
)
def test_no_server_is_asked_more_than_eight_times(behave: Callable[[bytes], Behaviour], image: Get) -> None:
    with BadServer(behave(image("vmdk").read_bytes())) as server:
        outcome = inspected(server)
    assert outcome.exit in (0, 69, 75), outcome.said
    assert len(server.requests) <= MOST_REQUESTS


@pytest.mark.parametrize("wrapper", ["gzip", "xz", "zstd"])
def test_the_size_of_a_wrapped_raw_disk_is_told_as_far_as_it_is_known(wrapper: str, nginx: Nginx, tmp_path: Path) -> None:
    parts = []
    for number, size in enumerate((3 * MIB, 2 * MIB)):
        raw = tmp_path / f"part-{number}"
        raw.write_bytes(content.seeded(MIB, number) + bytes(size - MIB))
        parts.append(compressed(raw, wrapper))
    served = nginx.folder / f"inspected-in-parts.{wrapper}"
    served.write_bytes(b"".join(parts))
    found = told(slipstream("inspect", nginx.url(served.name), "--json"))
    known = {"gzip": (None, None), "xz": (5 * MIB, None), "zstd": (None, 3 * MIB)}[wrapper]
    assert (found["virtual_size"], found["virtual_size_at_least"]) == known
    page = slipstream("inspect", nginx.url(served.name), "--for", tmp_path).out
    assert ("unknown until decoded" in page) == (known[0] is None), page
    assert ("at least 3.0 MiB" in page) == (known[1] is not None), page


def test_what_is_at_least_too_large_does_not_fit(nginx: Nginx, tmp_path: Path) -> None:
    raw = tmp_path / "sparse"
    with raw.open("wb") as file:
        file.truncate(1 << 30)
    served = nginx.folder / "inspected-large.zst"
    served.write_bytes(compressed(raw, "zstd"))
    outcome = slipstream("inspect", nginx.url(served.name), "--max-size", "512Mi")
    assert outcome.exit == 65, outcome.said
    assert "too-large" in outcome.out
