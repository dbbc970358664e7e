"""No image at all: the source of an empty disk, whose size --size tells."""

from collections.abc import AsyncIterator

from importer.sources.protocol import Basin, SourceFacts


class BlankSource:
    """An object of no bytes (see Source)."""

    facts = SourceFacts(url="blank:", name="blank", length=0, ranges=True)
    head = b""

    async def fetch(self, start: int, end: int | None) -> AsyncIterator[bytes]:
        """Yield nothing."""
        nothings: tuple[bytes, ...] = ()
        for nothing in nothings:
            yield nothing

    async def pour(self, start: int, end: int, basin: Basin) -> None:
        """Bring nothing."""

    async def settle(self) -> None:
        """It cannot change."""

    async def close(self) -> None:
        """Nothing is held."""
