"""Child processes: what they get, what is kept of what they say, and that none is left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from tools import needs_root, without

from machinery.process import child, confine

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.1; done"


async def gone(pid: int, seconds: float = 5) -> bool:
    """True once the process is no more (or a zombie that waits for somebody else)."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                return True
            if state == "Z":
                return True
            await asyncio.sleep(0.02)


async def test_output_and_the_end_of_what_it_complained_of_are_kept() -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; printf 'last\\033[31m' >&2; echo out; exit 3"
    ended = await child.run(["sh", "-c", script], seconds=10)
    assert (ended.returncode, ended.output) == (3, "out\n")
    assert len(ended.errors) <= child.TAIL_BYTES
    assert ended.last_line == "last\ufffd[31m"


async def test_a_child_has_no_input_no_environment_of_ours_and_works_in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    ended = await child.run(["sh", "-c", "cat; pwd; echo ${SECRET-none} $LC_ALL"], seconds=10)
    assert ended.output == "/\nnone C\n"


async def test_only_the_descriptors_named_reach_it() -> None:
    read, write = os.pipe()
    try:
        ended = await child.run(["sh", "-c", f"echo hello >/dev/fd/{write}"], seconds=10, pass_fds=[write])
        assert ended.returncode == 0
        assert os.read(read, 10) == b"hello\n"
        assert (await child.run(["sh", "-c", f"echo hello >/dev/fd/{write}"], seconds=10)).returncode != 0
    finally:
        os.close(read)
        os.close(write)


async def test_a_missing_program_is_a_file_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        await child.run(["no-such-program-here"], seconds=10)


async def test_a_child_that_ends_too_late_is_ended() -> None:
    tool = child.Child(["sleep", "1000"])
    with pytest.raises(TimeoutError):
        async with tool:
            await asyncio.wait_for(tool.wait(), 0.1)
    assert await gone(tool.pid)


async def test_a_child_that_ignores_sigterm_is_killed_when_its_owner_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.2)
    tool = child.Child(["sh", "-c", STUBBORN])
    started = asyncio.Event()

    async def own() -> None:
        async with tool:
            started.set()
            await tool.wait()

    owner = asyncio.create_task(own())
    await asyncio.wait_for(started.wait(), 5)
    owner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await owner
    assert await gone(tool.pid)


async def test_an_owner_cancelled_while_starting_leaves_no_child() -> None:
    marker = f"slipstream-test-{os.getpid()}"
    for _ in range(5):

        async def own() -> None:
            async with child.Child(["sleep", "1000", marker]) as tool:
                await tool.wait()

        owner = asyncio.create_task(own())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        owner.cancel()
        with pytest.raises(asyncio.CancelledError):
            await owner
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if marker.encode() in _read(path)]
    assert left == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_a_signal_has_its_name() -> None:
    ended = await child.run(["sh", "-c", "kill -ABRT $$"], seconds=10)
    assert ended.signal is signal.SIGABRT


def test_a_line_for_the_log_can_be_pasted() -> None:
    assert child.shell_line(["a", "b c", "$x"]) == "a 'b c' '$x'"


# -- confined


async def test_root_confines_a_tool_to_nobody_and_an_empty_network() -> None:
    needs_root()
    found, notes = await confine.available()
    if not (found.network and found.user):
        without(f"this machine denies it: {notes}")
    script = "cat /proc/net/dev; grep -E '^(Uid|CapBnd|NoNewPrivs)' /proc/self/status; ulimit -v; ulimit -c"
    ended = await child.run(confine.wrap(["sh", "-c", script], found), seconds=10)
    lines = ended.output.splitlines()
    assert [line.split(":")[0].strip() for line in lines if ":" in line][:1] == ["lo"]
    assert "eth0" not in ended.output
    assert "Uid:\t65534\t65534\t65534\t65534" in lines
    assert "CapBnd:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    assert lines[-2:] == [str(4 << 20), "0"]
    assert notes == ()


async def test_a_tool_confined_to_nobody_opens_again_what_it_was_given(tmp_path: Path) -> None:
    needs_root()
    found, _ = await confine.available()
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.fchown(fd, confine.NOBODY, -1)
        await child.run(confine.wrap(["sh", "-c", f"echo seen >/dev/fd/{fd}"], found), seconds=10, pass_fds=[fd])
        assert os.pread(fd, 9, 0) == b"seen\n"
    finally:
        os.close(fd)


async def test_what_is_denied_falls_back_with_a_note() -> None:
    impossible = confine.Confinement(network=True, privileges=True, address_space=1)
    found, notes = await confine.probe((impossible, confine.Confinement(privileges=True), confine.Confinement()))
    assert found == confine.Confinement(privileges=True)
    assert [note.split(":")[0] for note in notes] == ["network namespace denied", "resource limits denied"]


async def test_a_confined_child_dies_with_its_owner() -> None:
    found, _ = await confine.available()
    if not found.privileges:
        without("setpriv is not to be had here")
    command = confine.wrap(["sleep", "1000"], found)
    program = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen({command!r}, start_new_session=True)\n"
        "while b'sleep' not in open(f'/proc/{p.pid}/cmdline', 'rb').read().split(b'\\0')[0]: time.sleep(0.01)\n"
        "print(p.pid, flush=True); time.sleep(1000)"
    )
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(await asyncio.wait_for(owner.stdout.readline(), 10))
    owner.kill()
    await owner.wait()
    assert await gone(pid)
