"""Where that is kept which belongs to a block device and cannot lie beside it: its journal, and its first MiB until the end."""

import os
import stat
from collections.abc import Mapping

from importer.api.failure import Failure
from importer.disk.errors import writing

VARIABLE = "SLIPSTREAM_STATE_DIR"
_HINT = f"name a directory that this user may write with {VARIABLE}"


def directory_of(environ: Mapping[str, str], *, root: bool) -> str:
    """Return the path of the state directory."""
    if chosen := environ.get(VARIABLE):
        return chosen
    if root:
        return "/var/lib/slipstream"
    home = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(home, "slipstream")


def open_directory() -> tuple[int, str]:
    """Return a descriptor of the state directory and its path; it is made if it is not there.

    Raises Failure: "permission", "target-directory", "io".
    """
    path = directory_of(os.environ, root=os.geteuid() == 0)
    try:
        with writing(path, hint=_HINT):
            os.makedirs(path, mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except Failure as failure:
        raise Failure(failure.code, "the state directory cannot be used", hint=_HINT, **failure.evidence) from failure
    facts = os.fstat(fd)
    if facts.st_uid not in (os.geteuid(), 0) or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        os.close(fd)
        raise Failure("permission", "others may write the state directory", hint=_HINT, path=path)
    return fd, path


def open_file(directory: int, name: str, path: str) -> int:
    """Return a descriptor of a file of ours in the state directory, made if it is not there. Raises Failure."""
    with writing(path, hint=_HINT):
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Failure("target-unsupported", "in the state directory lies something that no import made", path=path)
            if os.fstat(fd).st_uid != os.geteuid():  # nobody's: a killed import had lent it
                os.fchown(fd, os.geteuid(), -1)
        except BaseException:
            os.close(fd)
            raise
    return fd
