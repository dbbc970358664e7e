"""Which file of a container image is the disk. Pure: decoded bytes of one layer after the other, uppermost first, in.

The disk is the one regular file below disk/ in the uppermost layer that has one, unless a layer above hides it.
"""

from dataclasses import dataclass, replace
from typing import NoReturn

from importer.api.failure import Failure
from machinery.values.tar import BadTar, Kind, Member, TarScanner

FOLDER = "disk"
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST_HIDDEN = 100_000
"""Names below disk/ that one image may hide."""
_SHOWN = 8
"""Names worth showing to a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden:
    """What layers hide of those below them: paths, each with all that is below it; with a slash at its end just a file."""

    paths: frozenset[str] = frozenset()
    emptied: frozenset[str] = frozenset()
    """Directories of which only the content is hidden."""

    def hides(self, path: str) -> bool:
        """Tell whether the file at a clean path of a lower layer is out of sight."""
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(len(parts))]
        return path in self.paths or path + "/" in self.paths or any(one in self.paths or one in self.emptied for one in above)


class LayerScan:
    """Looks for the disk in one layer. Feed it all of the layer: a second disk may come last."""

    def __init__(self, above: Hidden | None = None) -> None:
        """Begin a layer below others that hide `above`."""
        self._above = above or Hidden()
        self._paths = set(self._above.paths)
        self._emptied = set(self._above.emptied)
        self._tar = TarScanner()
        self.disk: Member | None = None
        """The disk under its clean path, as soon as its header was seen; its data are at offset..offset + size of the layer."""
        self.seen: list[str] = []
        """Some of what there is, for people: at first what lies below disk/."""
        self._elsewhere: list[str] = []

    @property
    def members(self) -> int:
        """How many members there were so far."""
        return self._tar.members

    @property
    def hidden(self) -> Hidden:
        """What this layer and those above it hide of the next one."""
        return Hidden(paths=frozenset(self._paths), emptied=frozenset(self._emptied))

    def feed(self, data: bytes | memoryview) -> Member | None:
        """Take the layer's next decoded bytes; return the disk if its header ended within them.

        Raises Failure: "several-disks" for a second one, "unsupported" for a disk that tar stored sparsely,
        "corrupt" or "unsafe" for a tar that is bad.
        """
        before = self.disk
        try:
            for member in self._tar.feed(data):
                self._judge(member)
        except BadTar as bad:
            _failed(bad)
        return self.disk if before is None else None

    def end(self) -> None:
        """Tell that the layer is over. Raises Failure("truncated")."""
        try:
            self._tar.end()
        except BadTar as bad:
            _failed(bad)

    def found(self) -> tuple[str, ...]:
        """Return a few of the names that were seen, for a failure to show."""
        return tuple([*self.seen, *self._elsewhere][:_SHOWN])

    def _judge(self, member: Member) -> None:
        path = clean(member.name)
        folder, _, name = path.rpartition("/")
        below = path.startswith(FOLDER + "/")
        if name.startswith(_WHITEOUT):
            self._whiteout(folder, name)
            return
        if path in ("", FOLDER) and member.kind is Kind.DIRECTORY:
            return
        shown = path if member.kind is Kind.FILE else f"{path} ({member.kind}{' to ' + member.link if member.link else ''})"
        if not below and path != FOLDER:
            if len(self._elsewhere) < _SHOWN:
                self._elsewhere.append(_printable(shown))
            return
        if len(self.seen) < _SHOWN:
            self.seen.append(_printable(shown))
        # A directory takes the place of a file, but not of what a directory there holds already.
        self._hide(self._paths, path + "/" if member.kind is Kind.DIRECTORY else path)
        if below and member.kind in (Kind.FILE, Kind.SPARSE) and not self._above.hides(path):
            self._candidate(member, path)

    def _candidate(self, member: Member, path: str) -> None:
        if member.kind is Kind.SPARSE:
            raise Failure(
                "unsupported",
                "the disk is a sparse member of the tar",
                hint="build the image with a tool that stores whole files, such as buildah or docker",
                member=_printable(path),
            )
        if self.disk is not None:
            first = _printable(self.disk.name)
            raise Failure("several-disks", "one layer holds two files below disk/", first=first, second=_printable(path))
        self.disk = replace(member, name=path)

    def _whiteout(self, folder: str, name: str) -> None:
        """Take note of a whiteout at or below the root that touches disk/."""
        if folder and folder != FOLDER and not folder.startswith(FOLDER + "/"):
            return
        if name == _OPAQUE:
            self._hide(self._emptied, folder)
            return
        target = name.removeprefix(_WHITEOUT)
        path = f"{folder}/{target}" if folder else target
        if folder or path == FOLDER:
            self._hide(self._paths, path)

    def _hide(self, where: set[str], path: str) -> None:
        where.add(path)
        if len(where) > _MOST_HIDDEN:
            raise Failure("unsafe", "the image hides more files than the limit", limit=_MOST_HIDDEN)


def clean(name: str) -> str:
    """Return a member's path without leading "./" or "/", and without idle parts. Raises Failure("unsafe") for ".." and NUL."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise Failure("unsafe", "a member of the tar has a path that leads elsewhere", member=_printable(name))
    return "/".join(parts)


def missing(found: tuple[str, ...], members: int) -> Failure:
    """Return the failure of an image in no layer of which there was a disk; `found` are names that there were."""
    shown = ", ".join(found) or "nothing"
    return Failure("disk-missing", "no layer of the image holds a file below disk/", found=shown, members=members)


def _printable(text: str) -> str:
    plain = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join(mark if mark.isprintable() else "?" for mark in plain)[:200]


def _failed(bad: BadTar) -> NoReturn:
    raise Failure(bad.code, bad.cause, **bad.evidence) from bad
