"""A part of a local file as a source of its own."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace

from importer.sources.local import LocalSource
from importer.sources.protocol import Basin, SourceFacts


class _Shifted:
    """A basin for offsets in the whole file."""

    def __init__(self, basin: Basin, by: int) -> None:
        self._basin = basin
        self._by = by

    def place(self, at: int, /) -> memoryview:
        return self._basin.place(at - self._by)

    def filled(self, at: int, count: int, /) -> None:
        self._basin.filled(at - self._by, count)


class SpanSource:
    """The bytes start..start + length of a file, numbered from 0. Closes the file it was given."""

    def __init__(self, file: LocalSource, start: int, length: int, head: bytes, facts: Mapping[str, str]) -> None:
        """Take over an open file; use `open` instead. `facts` replaces url and name."""
        self._file = file
        self._start = start
        self._length = length
        self._head = head
        self._facts = replace(file.facts, length=length, url=facts["url"], name=facts["name"])

    @classmethod
    async def open(cls, path: str, start: int, length: int, *, url: str, name: str) -> "SpanSource":
        """Open a part of a file. Raises Failure as LocalSource does."""
        file = await LocalSource.open(path)
        try:
            head = b""
            async with aclosing(file.fetch(start, start + min(length, 1 << 20))) as pieces:  # type: ignore[type-var] # a generator
                async for piece in pieces:
                    head += piece
            return cls(file, start, length, head, {"url": url, "name": name})
        except BaseException:
            await file.close()
            raise

    @property
    def facts(self) -> SourceFacts:
        """Those of the file, with the part's own name and length."""
        return self._facts

    @property
    def head(self) -> bytes:
        """The first MiB, or all of a smaller part."""
        return self._head

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield the bytes start..end; see Source.fetch."""
        stop = self._length if end is None else end
        async with aclosing(self._file.fetch(self._start + start, self._start + stop)) as pieces:  # type: ignore[type-var] # a generator
            async for piece in pieces:
                yield piece

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring the bytes start..end into a basin; see Source.pour."""
        await self._file.pour(self._start + start, self._start + end, _Shifted(basin, self._start))

    async def settle(self) -> None:
        """Check that the file did not change; see Source.settle."""
        await self._file.settle()

    async def close(self) -> None:
        """Close the file."""
        await self._file.close()
