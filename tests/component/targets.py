"""Opening targets, and being refused."""

from pathlib import Path

import pytest

from importer.api.failure import Failure
from importer.disk.target import Target


def opened(path: Path | str, *, force: bool = False) -> Target:
    """Open a target."""
    return Target.open(str(path), force=force)


def refused(path: Path | str, *, force: bool = False) -> Failure:
    """Return the failure that opening a target ends with."""
    with pytest.raises(Failure) as caught:
        opened(path, force=force)
    return caught.value
