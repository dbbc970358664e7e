"""zstd around an image: all frames, with a tracker that notices what libzstd's stream reader does not."""

import zstandard

from importer.api.failure import Failure
from importer.disk.decoding import READ, Feed, StepDecoder
from importer.disk.zstd_frames import WIDEST_WINDOW, ZstdFrames

_NARROWEST_LIMIT = 1 << 10
"""Bytes; libzstd takes no lower limit."""


class _Tracked:
    """The feed as libzstd reads it: every byte passes the tracker first, so that what it refuses is never decoded."""

    def __init__(self, feed: Feed, frames: ZstdFrames) -> None:
        self._feed = feed
        self._frames = frames
        self.ended = False

    def read(self, size: int) -> bytes:
        data = self._feed.read(size)
        if data:
            self._frames.feed(data)
        else:
            self.ended = True
        return data


class ZstdDecoder(StepDecoder):
    """Decodes the frames of a zstd object one after the other."""

    def __init__(self, feed: Feed, *, memory: int) -> None:
        """Decode what `feed` yields with windows of at most `memory` bytes."""
        self._frames = ZstdFrames(memory=memory)
        self._source = _Tracked(feed, self._frames)
        limit = max(_NARROWEST_LIMIT, min(memory, WIDEST_WINDOW))
        decompressor = zstandard.ZstdDecompressor(max_window_size=limit)
        self._reader = decompressor.stream_reader(self._source, read_size=READ, read_across_frames=True)  # type: ignore[arg-type]
        self._decoded = 0

    def step(self, room: memoryview) -> int:
        """See StepDecoder."""
        try:
            got = self._reader.readinto(room)
        except zstandard.ZstdError as error:
            raise Failure("corrupt", "the zstd data is damaged", decoder=error, frame=self._frames.frames) from error
        self._decoded += got
        if not got:
            self._settle()
        return got

    def _settle(self) -> None:
        """Check that this end is the end: the reader returns short data for a cut object too."""
        self._frames.end()
        said = self._frames.content_size
        if not self._source.ended or (said is not None and said != self._decoded):
            raise Failure("corrupt", "the zstd frames do not hold what they state", stated=said, decoded=self._decoded)
