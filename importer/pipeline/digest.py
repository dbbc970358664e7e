"""Digests of the bytes as served, in byte order, in a thread of their own."""

import asyncio
import hashlib
from concurrent.futures import ThreadPoolExecutor

from importer.api.failure import Failure
from importer.api.request import Checksum
from importer.pipeline.meter import Meter


class Digests:
    """Hashes pieces as they are handed over; none if no algorithm was asked for."""

    def __init__(self, algorithms: set[str], meter: Meter) -> None:
        """Compute every one of `algorithms` (names that hashlib knows)."""
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in sorted(algorithms)}
        self._thread = ThreadPoolExecutor(1, "digest") if algorithms else None
        self._meter = meter

    @property
    def wanted(self) -> bool:
        """True if anything is computed."""
        return bool(self._hashes)

    async def update(self, view: memoryview) -> None:
        """Hash the next bytes; calls must come in byte order, and run one after the other."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._update, view)

    def _update(self, view: memoryview) -> None:
        with self._meter.clock("digest").working():
            for state in self._hashes.values():
                state.update(view)

    def results(self) -> dict[str, str]:
        """Return algorithm to hex."""
        return {name: state.hexdigest() for name, state in self._hashes.items()}

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)

    def verify(self, promise: Checksum, origin: str) -> str:
        """Compare with a promise and return a sentence for the receipt. Raises Failure("checksum-mismatch")."""
        found = self.results()[promise.algorithm]
        if found != promise.hex:
            raise Failure(
                "checksum-mismatch", "the bytes are not those that were promised", algorithm=promise.algorithm,
                expected=promise.hex, found=found, promised_by=origin,
            )  # fmt: skip
        return f"{promise.algorithm} of {origin}"
