"""The clock of a start: `--help`, and the first byte on the network, beside what Python itself takes in the same minute."""

import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROUNDS = 9
BARE_SECONDS = 0.03
"""What an interpreter that does nothing may take on an idle machine; 0.018 when written."""
MOST_FOR_HELP = 0.15
MOST_BEYOND_AIOHTTP = 0.15


def ended(*argv: str) -> float:
    """Return the seconds a Python takes from its start to its end."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *argv], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=True)
    return time.perf_counter() - began


def first_byte() -> float:
    """Return the seconds from the start of an inspection to the first byte at a server, which never answers."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(60)
        url = f"http://127.0.0.1:{door.getsockname()[1]}/disk.img"
        argv = [sys.executable, "-m", "slipstream", "inspect", url]
        began = time.perf_counter()
        with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
            try:
                caller, _ = door.accept()
                with caller:
                    caller.settimeout(60)
                    assert caller.recv(1)
                    return time.perf_counter() - began
            finally:
                process.kill()


CASES: dict[str, Callable[[], float]] = {
    "bare": lambda: ended("-c", "pass"),
    "aiohttp": lambda: ended("-c", "import aiohttp"),
    "help": lambda: ended("-m", "slipstream", "--help"),
    "first byte": first_byte,
}


@pytest.fixture(scope="module")
def medians() -> dict[str, float]:
    """Take turns, so that whatever else the machine does meets all of them alike; the first round fills the caches."""
    rounds = [{name: case() for name, case in CASES.items()} for _ in range(ROUNDS + 1)][1:]
    return {name: statistics.median(one[name] for one in rounds) for name in CASES}


@pytest.fixture(scope="module")
def slowness(medians: dict[str, float]) -> float:
    """How much slower than an idle machine this one is now: at least 1, so that the limits are never stricter than promised."""
    return max(1.0, medians["bare"] / BARE_SECONDS)


def test_help_comes_at_once(medians: dict[str, float], slowness: float) -> None:
    assert medians["help"] <= MOST_FOR_HELP * slowness, medians


def test_the_first_byte_comes_soon_after_the_import_of_aiohttp(medians: dict[str, float], slowness: float) -> None:
    assert medians["first byte"] - medians["aiohttp"] <= MOST_BEYOND_AIOHTTP * slowness, medians
