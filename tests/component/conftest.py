"""What the component tests share: a file system that is soon full, an environment without proxies."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import without


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, check=False)
    if mounted.returncode:
        without("mounting needs root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the proxies out of the environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
