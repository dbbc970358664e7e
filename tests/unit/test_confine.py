"""Confinement: the command lines it comes to, what it says of itself, where a control group is found."""

from pathlib import Path

import pytest

from machinery.process import cgroup, confine
from machinery.process.confine import Confinement

STRICT, ORDINARY = confine.ladder(root=True)[0], confine.ladder(root=False)[0]
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_root_runs_a_tool_as_nobody_without_network() -> None:
    assert confine.wrap(["tool", "a b"], STRICT) == [
        *("unshare", "--net", "--"),
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"),
        *("--no-new-privs", "--pdeathsig=KILL", "--"),
        *("prlimit", "--as=4294967296", "--core=0", "--nofile=256", "--"),
        *("tool", "a b"),
    ]


def test_an_ordinary_user_gets_an_empty_network_by_a_user_namespace() -> None:
    assert confine.wrap(["tool"], ORDINARY)[:4] == ["unshare", "--user", "--net", "--"]
    assert not any(word.startswith("--reuid") for word in confine.wrap(["tool"], ORDINARY))


def test_no_confinement_changes_nothing() -> None:
    assert confine.wrap(["tool", "x"], Confinement()) == ["tool", "x"]


@pytest.mark.parametrize("root", [True, False])
def test_the_ladder_ends_with_what_always_works(root: bool) -> None:
    assert confine.ladder(root=root)[-1] == Confinement()


def test_a_confinement_says_what_it_is() -> None:
    assert STRICT.describe() == "empty network namespace, user nobody, no new privileges, address space 4 GiB"
    assert Confinement().describe() == "network not confined"


def test_what_is_denied_is_said_with_the_reason() -> None:
    got = Confinement(user=True, privileges=True, address_space=1)
    assert confine.denied(STRICT, got, "Operation not permitted") == ("network namespace denied: Operation not permitted",)
    assert confine.denied(STRICT, STRICT, "") == ()


@pytest.mark.parametrize(
    ("ours", "mounts", "path", "unified"),
    [
        ("0::/\n", V2, "/sys/fs/cgroup", True),
        ("0::/user.slice/a.scope\n", V2, "/sys/fs/cgroup/user.slice/a.scope", True),
        ("4:memory:/box/1\n3:cpu:/\n0::/\n", V1 + V2, "/sys/fs/cgroup/memory/box/1", False),
        ("4:cpu,memory:/docker/1\n", V1.replace(" / /sys/fs/cgroup/memory", " /docker/1 /cg"), "/cg", False),
    ],
)
def test_the_memory_group_of_a_process_is_located(ours: str, mounts: str, path: str, unified: bool) -> None:
    assert cgroup.locate(ours, mounts) == cgroup.Parent(path=Path(path), unified=unified)


@pytest.mark.parametrize(("ours", "mounts"), [("", ""), ("0::/../x\n", V2), ("3:cpu:/\n", V1), ("4:memory:/a\n", "")])
def test_a_group_that_cannot_be_seen_is_none(ours: str, mounts: str) -> None:
    assert cgroup.locate(ours, mounts) is None


def test_without_a_parent_there_is_no_group() -> None:
    with cgroup.group(None, 1 << 30) as group:
        assert group is None


def test_a_group_that_takes_no_limit_is_removed_again(tmp_path: Path) -> None:
    with cgroup.group(cgroup.Parent(path=tmp_path, unified=True), 1 << 30) as group:  # no kernel makes its files here
        assert group is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("unified", "limit"), [(True, "memory.max"), (False, "memory.limit_in_bytes")])
def test_a_group_limits_takes_processes_and_tells_of_kills(tmp_path: Path, unified: bool, limit: str) -> None:
    for name in (limit, "cgroup.procs"):
        (tmp_path / name).touch()
    group = cgroup.Group(tmp_path, unified=unified)
    group.limit(4096)
    group.add(77)
    assert (tmp_path / limit).read_text() == "4096"
    assert (tmp_path / "cgroup.procs").read_text() == "77"
    assert not group.killed()
    events = tmp_path / ("memory.events" if unified else "memory.oom_control")
    events.write_text("under_oom 0\noom_kill 0\n")
    assert not group.killed()
    events.write_text("under_oom 0\noom_kill 2\n")
    assert group.killed()
