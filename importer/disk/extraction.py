"""Members of an archive become files, as the stream brings them: each is reached part by part, and no link is followed."""

import errno
import os
import stat

from importer.api.failure import Failure
from importer.disk.errors import writing
from importer.disk.members import Limits, Placement
from importer.disk.space import SpaceGuard
from importer.disk.staging import Staging
from machinery.values.tar import BadTar, Kind, TarScanner

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 4096
"""Bytes that a member costs at least."""


class Extraction:
    """A sink (see movers.Sink) that extracts one tar into a staging directory. Raises Failure, also from `write`."""

    def __init__(self, staging: Staging, limits: Limits, guard: SpaceGuard) -> None:
        """Begin at the first byte of the tar."""
        self._staging = staging
        self._limits = limits
        self._guard = guard
        self._scanner = TarScanner()
        self._folders: dict[tuple[str, ...], tuple[int, int | None]] = {}
        """Mode and mtime, set at the end: until then they must let us in, and change as they fill."""
        self._parent: tuple[tuple[str, ...], int] | None = None
        """The directory of the last member, open: most members share it with the one before."""
        self._file: tuple[Placement, int] | None = None

    def write(self, offset: int, view: memoryview, /) -> None:
        """Take the next bytes of the tar; `offset` counts from its beginning."""
        try:
            found = self._scanner.feed(view)
        except BadTar as bad:
            raise Failure(bad.code, bad.cause, **bad.evidence) from bad
        self._fill(offset, view)
        for member in found:
            self._finish()
            placed = self._limits.place(member)
            if placed is not None:
                self._make(placed)
                self._fill(offset, view)
        self._limits.came(offset + len(view))

    def end(self) -> None:
        """Tell that the stream is over; set what is set last. Raises Failure("truncated") without a mark of the end."""
        try:
            self._scanner.end()
        except BadTar as bad:
            raise Failure(bad.code, bad.cause, **bad.evidence) from bad
        if not self._scanner.ended:
            raise Failure("truncated", "the archive lacks the mark of its end", hint=_PACK_ANEW, offset=self._scanner.position)
        self._finish()
        with writing(self._staging.path):
            for parts in sorted(self._folders, key=len, reverse=True):
                self._dress(parts)
        self._guard.check()

    def close(self) -> None:
        """Let go of what is open."""
        if self._file is not None:
            os.close(self._file[1])
            self._file = None
        self._leave()

    def _fill(self, offset: int, view: memoryview) -> None:
        """Write what `view`, at `offset` of the stream, has of the open file."""
        if self._file is None:
            return
        placed, fd = self._file
        low, high = max(placed.offset, offset), min(placed.offset + placed.size, offset + len(view))
        if low >= high:
            return
        part = view[low - offset : high - offset]
        with writing(self._staging.path):
            while part:
                part = part[os.write(fd, part) :]
        self._guard.wrote(high - low)

    def _finish(self) -> None:
        if self._file is None:
            return
        placed, fd = self._file
        with writing(self._staging.path):
            os.fchmod(fd, placed.mode)
            os.utime(fd, ns=(placed.mtime_ns, placed.mtime_ns))
            self._file = None
            os.close(fd)

    def _make(self, placed: Placement) -> None:
        self._staging.vacant(placed.parts[0])
        self._guard.wrote(_BLOCK)
        with writing(self._staging.path):
            if placed.kind is Kind.DIRECTORY:
                self._open(placed.parts, placed)
                self._folders[placed.parts] = (placed.mode, placed.mtime_ns)
                return
            parent, name = self._open(placed.parts[:-1], placed), placed.parts[-1]
            if placed.kind is Kind.HARD_LINK:
                if placed.original != placed.parts:
                    self._link(placed, parent, name)
                return
            _clear(parent, name, placed)
            if placed.kind is Kind.SYMBOLIC_LINK:
                os.symlink(placed.link, name, dir_fd=parent)
                os.utime(name, ns=(placed.mtime_ns, placed.mtime_ns), dir_fd=parent, follow_symlinks=False)
            else:
                self._file = placed, os.open(name, _FILE, 0o600, dir_fd=parent)

    def _link(self, placed: Placement, parent: int, name: str) -> None:
        """Give a file that this archive made another name."""
        try:
            folder = self._walk(placed.original[:-1])
        except OSError as error:
            raise _not_made(placed) from error
        try:
            try:
                facts = os.stat(placed.original[-1], dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError as error:
                raise _not_made(placed) from error
            if not stat.S_ISREG(facts.st_mode):
                raise _not_made(placed)
            _clear(parent, name, placed)
            os.link(placed.original[-1], name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(folder)

    def _open(self, parts: tuple[str, ...], placed: Placement) -> int:
        """Return the directory at `parts`, made if need be. It stays open until another is asked for."""
        if self._parent is not None and self._parent[0] == parts:
            return self._parent[1]
        self._leave()
        try:
            fd = self._walk(parts, make=True)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            cause = "a member of the archive lies below one that is no directory"
            raise Failure("unsafe", cause, hint=_PACK_ANEW, member=placed.path) from error
        self._parent = parts, fd
        return fd

    def _leave(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
            self._parent = None

    def _walk(self, parts: tuple[str, ...], *, make: bool = False) -> int:
        """Return a new descriptor of the directory at `parts`. Raises OSError for links and files on the way."""
        fd = os.dup(self._staging.tree)
        try:
            for count, part in enumerate(parts, start=1):
                if make:
                    self._have(fd, parts[:count])
                below = os.open(part, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = below
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _have(self, folder: int, parts: tuple[str, ...]) -> None:
        """Make the directory `parts` in `folder`, its parent, unless something is there."""
        if parts in self._folders:
            return
        try:
            os.mkdir(parts[-1], 0o700, dir_fd=folder)
        except FileExistsError:
            return
        self._folders[parts] = (0o755, None)

    def _dress(self, parts: tuple[str, ...]) -> None:
        mode, mtime_ns = self._folders[parts]
        fd = self._walk(parts)
        try:
            if mtime_ns is not None:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            # Without leave to write in it, only root may move a directory; see `released`.
            os.fchmod(fd, mode | 0o200 if len(parts) == 1 else mode)
        finally:
            os.close(fd)

    def released(self) -> None:
        """Take leave to write from those directories that should have none, once they are in their place."""
        for parts, (mode, _) in self._folders.items():
            if len(parts) == 1 and not mode & 0o200 and parts[0] != "lost+found":
                os.chmod(parts[0], mode, dir_fd=self._staging.target)


_PACK_ANEW = "build the archive anew"


def _clear(parent: int, name: str, placed: Placement) -> None:
    """Remove what an earlier member of the same name made: the last one counts, as with other tools."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError) as error:
        raise Failure(
            "unsafe", "a member of the archive takes the place of a directory", hint=_PACK_ANEW, member=placed.path
        ) from error


def _not_made(placed: Placement) -> Failure:
    link = "/".join(placed.original)
    cause = "a hard link of the archive leads to no file that it made before"
    return Failure("unsafe", cause, hint=_PACK_ANEW, member=placed.path, link=link)
