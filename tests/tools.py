"""What the tests need from the machine, and what is said when it is not there."""

import os
import shutil
from pathlib import Path

import pytest

# Some of them live in sbin, which a user's PATH does not name.
_PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def needs(*names: str) -> None:
    """Skip the test by name if a tool is not installed; on CI (CI=true), where it must be, fail instead."""
    missing = [name for name in names if shutil.which(name, path=_PATH) is None]
    if missing:
        without(f"needs {', '.join(missing)}: not installed")


def needs_root() -> None:
    """Skip the test if it may not mount file systems or become another user; on CI, fail instead."""
    if os.geteuid() != 0:
        without("needs root")


def without(reason: str) -> None:
    """Skip for a reason that must not occur on CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"on CI this must not be skipped: {reason}")
    pytest.skip(reason)


def tool(name: str) -> str:
    """Return a tool's path."""
    needs(name)
    found = shutil.which(name, path=_PATH)
    assert found
    return found


def tree(folder: Path) -> list[str]:
    """Return the names of everything in a directory, hidden files too."""
    return sorted(os.listdir(folder))
