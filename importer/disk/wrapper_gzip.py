"""gzip around an image: all members, each with CRC and length checked by isal."""

from isal import igzip_lib

from importer.api.failure import Failure
from importer.disk.decoding import OUTPUT, READ, Feed, Intake, StepDecoder

_MAGIC = b"\x1f\x8b"


class GzipDecoder(StepDecoder):
    """Decodes the members of a gzip object one after the other (isal by itself stops after the first).

    Zero bytes may follow the last member (tapes and block devices pad so), anything else may not.
    """

    def __init__(self, feed: Feed) -> None:
        """Decode what `feed` yields."""
        self._intake = Intake(feed, largest=READ)
        self._member: igzip_lib.IgzipDecompressor | None = None
        self._members = 0
        self._ended = False
        self._decoded = 0

    def step(self, room: memoryview) -> int:
        """See StepDecoder."""
        while not self._ended:
            member = self._member
            if member is None:
                self._begin()
                continue
            out = self._decompress(member, min(len(room), OUTPUT))
            if member.eof:
                self._intake.give_back(member.unused_data)
                self._member = None
            if out:
                self._decoded += len(out)
                room[: len(out)] = out
                return len(out)
        return 0

    def _decompress(self, member: igzip_lib.IgzipDecompressor, limit: int) -> bytes:
        hungry = member.needs_input
        data = self._intake.take() if hungry else b""
        try:
            out: bytes = member.decompress(data, limit)
        except igzip_lib.IsalError as error:  # type: ignore[misc]
            raise Failure("corrupt", "the gzip data is damaged", decoder=error, member=self._members) from error
        if hungry and not data and not out and not member.eof:
            raise Failure("truncated", "the gzip data ends inside a member", whole_members=self._members - 1)
        return out

    def _begin(self) -> None:
        """Open the next member, or find the end."""
        magic = self._intake.peek(len(_MAGIC))
        if magic == _MAGIC:
            if self._members:
                self.mark = self._intake.position, self._decoded
            self._intake.restart()
            self._members += 1
            self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            return
        if _MAGIC.startswith(magic) and (magic or not self._members):
            raise Failure("truncated", "the gzip data ends inside a header", whole_members=self._members)
        if not self._members:
            raise Failure("corrupt", "the gzip data does not begin with a gzip header")
        self._intake.skip_zeroes()
        if self._intake.peek(1):
            raise Failure("corrupt", "bytes that are no gzip member follow the gzip data", whole_members=self._members)
        self._ended = True
