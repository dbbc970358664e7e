"""Whether a disk fits where it is to go: the space there, what is to stay free, and the verdict in words."""

import os
from dataclasses import dataclass

from importer.disk import sizing, space
from importer.disk.errors import writing
from importer.disk.landing import Landing, is_device
from importer.disk.target import DEFAULT_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The space at a target's directory when it was looked at. Bytes."""

    directory: str
    free: int
    reserve: int
    capacity: int | None = None
    """Bytes of a block device: no disk there may be larger, whatever it holds."""

    @classmethod
    def at(cls, directory: str, reserve: int | None, *, own_names: tuple[str, ...] = ()) -> "Room":
        """Look at `directory`; `reserve` None is the default of its file system. Raises Failure."""
        with writing(directory):
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return cls(directory=directory, free=space.free_space(fd), reserve=space.reserve_of(fd, reserve, own_names=own_names))
        finally:
            os.close(fd)

    @classmethod
    def of(cls, target: Landing, reserve: int | None) -> "Room":
        """Look at the file system of an open target, or at the device that it is."""
        return cls(
            directory=target.directory, free=target.free_space(), reserve=target.reserve(reserve), capacity=target.capacity
        )

    @classmethod
    def around(cls, path: str, reserve: int | None) -> "Room":
        """Look where a target of this path would be: a file to be, an existing directory, or a block device."""
        if is_device(path):
            from importer.disk import device_claim

            size = device_claim.size_of(path)
            return cls(directory="", free=size, reserve=0, capacity=size)
        if os.path.isdir(path):
            return cls.at(path, reserve, own_names=(DEFAULT_NAME,))
        return cls.at(os.path.dirname(path) or ".", reserve)

    def judge(self, *, needed: int, virtual_size: int | None, preallocate: bool) -> list[str]:
        """Return warnings. Raises Failure("no-space") for what cannot fit."""
        if self.capacity is not None:
            if max(needed, virtual_size or 0) > self.capacity:
                raise sizing.too_small(max(needed, virtual_size or 0), self.capacity)
            return []
        verdict = sizing.verdict(
            needed_lower_bound=needed, virtual_size=virtual_size, free=self.free, reserve=self.reserve, preallocate=preallocate
        )
        failure = verdict.failure()
        if failure is not None:
            raise failure
        return [verdict.text] if verdict.text else []

    def guard(self) -> space.SpaceGuard | None:
        """Return what watches the space while bytes are written; None for a device, which has its space."""
        if self.capacity is not None:
            return None
        return space.SpaceGuard(lambda: _free(self.directory), self.reserve)


def _free(directory: str) -> int:
    facts = os.statvfs(directory)
    return facts.f_bavail * facts.f_frsize
