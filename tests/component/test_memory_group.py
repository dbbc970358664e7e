"""The memory limit by control group, proved in a group of our own that the process takes for the root of all groups.

That is what a container's process sees: a control group namespace whose root is its own group, and a mount of it.
"""

import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command import ROOT, environment
from fakes.webserver import Nginx
from tools import needs, tree, without

from machinery.process import cgroup

Get = Callable[..., Path]
MIB = 1 << 20
_numbers = itertools.count()

EATS_TOO_MUCH = f"""
import asyncio, signal, sys
from machinery.process import cgroup

async def main() -> None:
    parent = cgroup.find()
    assert parent is not None, "the group was not found"
    with cgroup.group(parent, {64 * MIB}) as group:
        assert group is not None, "no group was made"
        for size, ends in (({16 * MIB}, 0), ({256 * MIB}, -signal.SIGKILL)):
            eat = f"import sys; sys.stdin.read(); x = b'x' * {{size}}"
            tool = await asyncio.create_subprocess_exec(sys.executable, "-c", eat, stdin=asyncio.subprocess.PIPE)
            group.add(tool.pid)
            await tool.communicate(b"")
            assert tool.returncode == ends, (size, tool.returncode)
            assert group.killed() == (ends != 0), size
    assert not group.path.exists(), "the group was left behind"

asyncio.run(main())
"""


@contextmanager
def _group() -> Iterator[Path]:
    """Make a group of ours within the one that we are in."""
    parent = cgroup.locate(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    if parent is None:
        without("no memory controller is mounted where this process is")
    assert parent is not None
    if parent.unified:
        without("control groups of version 2 hand no memory controller to a group that holds processes")
    path = parent.path / f"slipstream-test-{os.getpid()}-{next(_numbers)}"
    try:
        path.mkdir()
    except OSError as error:
        without(f"no control group can be made here: {error.strerror}")
    try:
        yield path
    finally:
        cgroup.remove(path)
        assert not path.exists(), "a process was left in the group"


def as_in_a_container(*words: str | Path, mounted: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where its own group is the root of all, mounted at `mounted`."""
    needs("unshare", "mount")
    mounted.mkdir()
    inside = f"mount -t cgroup -o memory none {shlex.quote(str(mounted))} && exec {shlex.join(map(str, words))}"
    with _group() as group:
        entering = f"echo $$ >{group}/cgroup.procs && exec unshare --mount --cgroup sh -c {shlex.quote(inside)}"
        return subprocess.run(
            ["sh", "-c", entering], env=environment({}), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        without("only root can mount control groups")


def test_a_process_that_takes_more_than_its_group_allows_is_killed(tmp_path: Path) -> None:
    ended = as_in_a_container(sys.executable, "-c", EATS_TOO_MUCH, mounted=tmp_path / "groups")
    assert ended.returncode == 0, ended.stderr


def test_qemu_img_runs_in_a_group_where_the_groups_are_ours(image: Get, nginx: Nginx, landing: Path, tmp_path: Path) -> None:
    served, receipt = image("vhd-dynamic"), tmp_path / "receipt.json"
    command = (sys.executable, "-m", "slipstream", "import", nginx.url(served.name), landing, "--receipt", receipt)
    ended = as_in_a_container(*command, mounted=tmp_path / "groups")
    assert ended.returncode == 0, ended.stderr
    assert "memory 1024 MiB by control group" in json.loads(receipt.read_text())["sandbox"]
    assert tree(landing) == ["disk.img"]
