"""The networks that imports are measured on, made for the run and removed after it.

loopback    nginx on 127.0.0.1: no network at all, packets of 64 KiB
lan         nginx in a network namespace behind a veth pair, MTU 1500
gigabit     the same behind `tc tbf` at 1 Gb/s
wan         nginx behind wan_proxy.py: 40 ms, 30 MB/s a connection, 125 MB/s in all
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from webserver import end, nginx

PORT = 8080
SUBNET = "198.18.{}.{}"
"""Of 198.18.0.0/15, which is set aside for benchmarks of networks (RFC 2544)."""
RATE = "1gbit"


class Unavailable(Exception):
    """This machine, or this user, cannot make the network."""


@contextmanager
def loopback(prefix: Path, root: Path) -> Iterator[str]:
    """Serve `root` on loopback."""
    with nginx(prefix, root) as url:
        yield url


@contextmanager
def lan(prefix: Path, root: Path, *, rate: str | None = None) -> Iterator[str]:
    """Serve `root` from a namespace, perhaps at a limited rate. Raises Unavailable."""
    with ExitStack() as undo:
        space, address = _veth(undo, rate)
        yield undo.enter_context(nginx(prefix, root, address=address, port=PORT, inside=("ip", "netns", "exec", space)))


@contextmanager
def gigabit(prefix: Path, root: Path) -> Iterator[str]:
    """Serve `root` from a namespace at 1 Gb/s. Raises Unavailable."""
    with lan(prefix, root, rate=RATE) as url:
        yield url


@contextmanager
def wan(prefix: Path, root: Path) -> Iterator[str]:
    """Serve `root` on loopback behind the modelled wide-area link."""
    program = str(Path(__file__).with_name("wan_proxy.py"))
    with nginx(prefix, root) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        argv = [sys.executable, program, host, port]
        proxy = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert proxy.stdout is not None
        try:
            with proxy.stdout:
                there = int(proxy.stdout.readline())
            yield f"http://127.0.0.1:{there}"
        finally:
            end(proxy)


NETWORKS: Mapping[str, Callable[[Path, Path], AbstractContextManager[str]]] = {
    "loopback": loopback,
    "lan": lan,
    "wan": wan,
    "gigabit": gigabit,
}


def _veth(undo: ExitStack, rate: str | None) -> tuple[str, str]:
    """Make a namespace and a veth pair into it; `undo` removes them. Returns its name and the server's address."""
    if os.geteuid() != 0:
        raise Unavailable("not root: a network namespace needs root")
    if missing := [tool for tool in ("ip", "tc") if not shutil.which(tool)]:
        raise Unavailable(f"not installed: {', '.join(missing)}")
    pid = os.getpid()
    space, near, far = f"slipstream-bench-{pid}", f"sb{pid}n", f"sb{pid}f"
    ours, theirs = (SUBNET.format(pid % 256, last) for last in (1, 2))
    _run("ip", "netns", "add", space)
    undo.callback(_run, "ip", "netns", "del", space)
    _run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", space)
    undo.callback(_run, "ip", "link", "del", near)
    _run("ip", "address", "add", f"{ours}/30", "dev", near)
    _run("ip", "link", "set", near, "mtu", "1500", "up")
    _run("ip", "-n", space, "address", "add", f"{theirs}/30", "dev", far)
    _run("ip", "-n", space, "link", "set", far, "mtu", "1500", "up")
    if rate:
        _run("tc", "-n", space, "qdisc", "add", "dev", far, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "50ms")
    return space, theirs


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable(f"{' '.join(argv[:3])}: {done.stderr.strip() or done.returncode}")
