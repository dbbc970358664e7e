"""The benchmark's networks with real servers: bytes come through unharmed, and nothing is left behind."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from tools import tool, without

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import measure
import networks
from wan_proxy import CONNECTION_RATE, ROUND_TRIP

CONTENT = os.urandom(3_000_000)
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def served(tmp_path: Path) -> Path:
    tool("nginx")
    root = tmp_path / "files"
    root.mkdir()
    (root / "file").write_bytes(CONTENT)
    return root


def fetched(url: str) -> bytes:
    with OPENER.open(f"{url}/file", timeout=20) as answer:
        return bytes(answer.read())


@pytest.fixture
def may_make_namespaces() -> None:
    tool("ip"), tool("tc")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "true"], capture_output=True).returncode:
        without("network namespaces are not ours to make")


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def test_the_modelled_link_delays_and_paces_but_changes_no_byte(served: Path, tmp_path: Path):
    with networks.wan(tmp_path / "nginx", served) as url:
        began = time.monotonic()
        assert fetched(url) == CONTENT
        assert time.monotonic() - began >= 2 * ROUND_TRIP + len(CONTENT) / CONNECTION_RATE - 0.01


def test_the_modelled_link_survives_a_client_that_leaves(served: Path, tmp_path: Path):
    with networks.wan(tmp_path / "nginx", served) as url:
        with OPENER.open(f"{url}/file", timeout=20) as answer:
            answer.read(1000)
        assert fetched(url) == CONTENT


@pytest.mark.usefixtures("may_make_namespaces")
@pytest.mark.parametrize("network", [networks.lan, networks.gigabit])
def test_a_namespace_serves_and_is_gone_afterwards_whatever_happened(network, served: Path, tmp_path: Path):
    before = interfaces()
    with suppress(KeyboardInterrupt), network(tmp_path / "nginx", served) as url:
        assert fetched(url) == CONTENT
        assert len(interfaces() - before) == 1
        raise KeyboardInterrupt
    assert interfaces() == before
    assert f"slipstream-bench-{os.getpid()}" not in subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(measure, "TIMEOUT", 0.5)
    note = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {note}; wait"
    with pytest.raises(measure.Failed):
        measure.measure(["bash", "-c", script], env=os.environ)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{note.read_text().strip()}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_memory_of_children_counts(tmp_path: Path):
    grow = "bytearray(64 << 20); import time; time.sleep(0.5)"
    python = f"{sys.executable} -c 'held = {grow}'"
    run = measure.measure(["bash", "-c", f"{python} & {python}; wait"], env=os.environ)
    assert run.pss > 120 << 20
    assert run.wall > 0.5
    assert run.cpu > 0
