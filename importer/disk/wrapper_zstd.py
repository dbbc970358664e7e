"""zstd around an image: all frames, with a tracker that notices what libzstd's stream reader does not."""

import zstandard

from importer.api.failure import Failure
from importer.disk.decoding import READ, Feed, StepDecoder
from importer.disk.zstd_frames import WIDEST_WINDOW, ZstdFrames

_NARROWEST_LIMIT = 1 << 10
"""Bytes; libzstd takes no lower limit."""


class _Tracked:
    """One frame of the feed as libzstd reads it: bytes pass the tracker first, so that what it refuses is never decoded."""

    def __init__(self, feed: Feed, frames: ZstdFrames) -> None:
        self._feed = feed
        self._frames = frames
        self._held = memoryview(b"")
        """Read already, and not of this frame."""
        self._over = False
        self.ended = False

    def read(self, size: int) -> bytes:
        if self._over or not self._fill(size):
            return b""
        used = self._frames.feed(self._held, one=True)
        data, self._held = bytes(self._held[:used]), self._held[used:]
        self._over = self._frames.at_boundary
        return data

    def _fill(self, size: int) -> bool:
        if not self._held:
            self._held = memoryview(self._feed.read(size))
            self.ended = not self._held
        return not self.ended

    def next_frame(self) -> bool:
        """Go on to the next frame; False at the end of the object, wherever that is."""
        if not self._fill(READ):
            return False
        more, self._over = self._over, False
        return more


class ZstdDecoder(StepDecoder):
    """Decodes the frames of a zstd object one after the other."""

    def __init__(self, feed: Feed, *, memory: int) -> None:
        """Decode what `feed` yields with windows of at most `memory` bytes."""
        self._frames = ZstdFrames(memory=memory)
        self._source = _Tracked(feed, self._frames)
        limit = max(_NARROWEST_LIMIT, min(memory, WIDEST_WINDOW))
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=limit)
        self._reader = self._open()
        self._decoded = 0

    def _open(self) -> zstandard.ZstdDecompressionReader:
        return self._decompressor.stream_reader(self._source, read_size=READ, read_across_frames=True)  # type: ignore[arg-type]

    def step(self, room: memoryview) -> int:
        """See StepDecoder."""
        while True:
            try:
                got = self._reader.readinto(room)
            except zstandard.ZstdError as error:
                raise Failure("corrupt", "the zstd data is damaged", decoder=error, frame=self._frames.frames) from error
            self._decoded += got
            if got:
                return got
            if not self._source.next_frame():
                self._settle()
                return 0
            self.mark = self._frames.position, self._decoded
            self._reader = self._open()  # a new one each frame: only then it is known how much each decodes to

    def _settle(self) -> None:
        """Check that this end is the end: the reader returns short data for a cut object too."""
        self._frames.end()
        said = self._frames.content_size
        if not self._source.ended or (said is not None and said != self._decoded):
            raise Failure("corrupt", "the zstd frames do not hold what they state", stated=said, decoded=self._decoded)
