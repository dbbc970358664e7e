"""Which members of an archive may be made, and as what. Pure: members as they stand in the stream in, placements out.

What is refused here needs no look at the disk. That no part of a path is a link or a file is seen where it is opened
(disk.extraction): all that lies there was made by the same archive.
"""

from dataclasses import dataclass

from importer.api.failure import Failure
from importer.disk.tar import clean
from machinery.values.tar import Kind, Member

MOST_MEMBERS = 1_000_000
DEEPEST = 128
"""Parts of one path."""
LONGEST_PART = 255
LONGEST_PATH = 3500
"""Bytes; PATH_MAX is 4096, and the target's own path stands before it."""
SLACK = 64 << 20
"""Bytes that are no file's content and that every archive may hold, such as padding at its end."""
SLACK_OF_MEMBER = 64 << 10
_MADE = (Kind.FILE, Kind.DIRECTORY, Kind.SYMBOLIC_LINK, Kind.HARD_LINK)
_DEVICES = (Kind.CHARACTER_DEVICE, Kind.BLOCK_DEVICE, Kind.FIFO)
_PERMISSIONS = 0o777
"""Of a mode what is taken over: no setuid, setgid, sticky."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What is to be made below the target."""

    kind: Kind
    """FILE, DIRECTORY, SYMBOLIC_LINK or HARD_LINK."""
    parts: tuple[str, ...]
    """Its path: at least one part, none of them "", "." or ".."."""
    mode: int
    mtime_ns: int
    size: int = 0
    offset: int = 0
    """Where in the stream its `size` bytes begin."""
    link: str = ""
    """The text of a symbolic link."""
    original: tuple[str, ...] = ()
    """The path of what a hard link is another name of."""

    @property
    def path(self) -> str:
        """The path below the target."""
        return "/".join(self.parts)


class Limits:
    """Judges the members of one archive, one after the other."""

    def __init__(self, max_size: int, *, most_members: int = MOST_MEMBERS) -> None:
        """Let all files together have at most `max_size` bytes."""
        self._max_size = max_size
        self._most = most_members
        self.members = 0
        self.bytes = 0
        """Of all files so far."""

    def place(self, member: Member) -> Placement | None:
        """Return what to make of a member, None for the target itself. Raises Failure: unsafe, unsupported, too-large."""
        self.members += 1
        if self.members > self._most:
            raise Failure("unsafe", "the archive has more members than the limit", hint=_SPLIT, limit=self._most)
        _known(member)
        parts = parts_of(member.name)
        self.bytes += member.size
        if self.bytes > self._max_size:
            raise Failure(
                "too-large", "the files of the archive are larger than the limit",
                member=member.name, bytes=self.bytes, limit=self._max_size,
            )  # fmt: skip
        if not parts:
            if member.kind is not Kind.DIRECTORY:
                raise _unsafe("a member of the archive has no name", member)
            return None
        link = link_text(member, parts) if member.kind is Kind.SYMBOLIC_LINK else ""
        original = parts_of(member.link) if member.kind is Kind.HARD_LINK else ()
        if member.kind is Kind.HARD_LINK and not original:
            raise _unsafe("a hard link of the archive leads to no file", member, link=member.link)
        return Placement(
            kind=member.kind, parts=parts, mode=member.mode & _PERMISSIONS, mtime_ns=member.mtime_ns,
            size=member.size, offset=member.offset, link=link, original=original,
        )  # fmt: skip

    def came(self, position: int) -> None:
        """Raise Failure("bomb") if of `position` bytes of the stream absurdly many belong to no file."""
        if position - self.bytes > SLACK + SLACK_OF_MEMBER * self.members:
            raise Failure("bomb", "the archive goes on and on without holding anything", bytes=position, members=self.members)


_SPLIT = "split it into several archives"
_REBUILD = "build the archive anew, without it, on a machine you trust"


def _known(member: Member) -> None:
    if member.kind in _DEVICES:
        raise _unsafe(f"a member of the archive is a {member.kind}", member)
    if member.kind not in _MADE:
        hint = "pack it without --sparse" if member.kind is Kind.SPARSE else _REBUILD
        raise Failure("unsupported", f"a member of the archive is a {member.kind}", hint=hint, member=member.name)


def parts_of(name: str) -> tuple[str, ...]:
    """Return the parts of a path below the target, () for the target itself. Raises Failure("unsafe")."""
    if name.startswith("/"):
        raise Failure("unsafe", "a member of the archive has an absolute path", hint=_REBUILD, member=name)
    parts = tuple(clean(name).split("/")) if clean(name) else ()
    size = len(name.encode("utf-8", "surrogateescape"))
    if len(parts) > DEEPEST or size > LONGEST_PATH:
        raise Failure(
            "unsafe", "a path in the archive is too long", hint=_REBUILD, member=name[:200], bytes=size, parts=len(parts)
        )
    if any(len(part.encode("utf-8", "surrogateescape")) > LONGEST_PART for part in parts):
        raise Failure("unsafe", "a name in the archive is too long", hint=_REBUILD, member=name[:200], limit=LONGEST_PART)
    return parts


def link_text(member: Member, parts: tuple[str, ...]) -> str:
    """Return the text of a symbolic link at `parts` that cannot lead out of the target. Raises Failure("unsafe").

    Its ".." may only stand at its beginning, where they climb directories that are none but themselves. Further on one of
    them might follow another link, and "a/.." is not here if "a" leads elsewhere: with this rule no chain of links gets out.
    """
    text = member.link
    if not text or "\0" in text or len(text.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
        raise _unsafe("a symbolic link of the archive leads nowhere", member, link=text[:200])
    if text.startswith("/"):
        raise _unsafe("a symbolic link of the archive is absolute", member, link=text)
    steps = [step for step in text.split("/") if step not in ("", ".")]
    up = next((count for count, step in enumerate(steps) if step != ".."), len(steps))
    if up > len(parts) - 1 or ".." in steps[up:]:
        raise _unsafe("a symbolic link of the archive may lead out of it", member, link=text)
    return text


def _unsafe(cause: str, member: Member, **evidence: object) -> Failure:
    return Failure("unsafe", cause, hint=_REBUILD, member=member.name[:200], **evidence)
