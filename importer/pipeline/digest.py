"""Digests of the bytes as served, in byte order, in a thread of their own; where libcrypto allows, they can be taken up again."""

import asyncio
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from importer.api.failure import Failure
from importer.api.request import Checksum
from importer.disk.journal import Hashed
from importer.pipeline.meter import Meter
from machinery.process import hash_state


class _State(Protocol):
    """An object of hashlib, or a hash_state.KeptHash."""

    def update(self, data: memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class Digests:
    """Hashes pieces as they are handed over; none if no algorithm was asked for."""

    def __init__(self, algorithms: Iterable[str], meter: Meter) -> None:
        """Compute every one of `algorithms` (names that hashlib knows)."""
        self.algorithms = frozenset(algorithms)
        self._states: dict[str, _State] = {name: _begin(name) for name in sorted(self.algorithms)}
        self._bytes = 0
        """Bytes hashed so far: the object's first."""
        self._thread = ThreadPoolExecutor(1, "digest") if self._states else None
        self._meter = meter

    @property
    def wanted(self) -> bool:
        """True if anything is computed."""
        return bool(self._states)

    def go_on(self, hashed: Hashed) -> None:
        """Take up what an earlier import hashed; its maker and algorithms must be those here."""
        for name in self._states:
            self._states[name] = hash_state.KeptHash(name, bytes.fromhex(hashed.states[name]))
        self._bytes = hashed.bytes

    async def update(self, start: int, view: memoryview) -> None:
        """Hash the object's bytes from `start` on; calls must come in byte order. What was hashed before is passed over."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._update, start, view)

    def _update(self, start: int, view: memoryview) -> None:
        if start + len(view) <= self._bytes:
            return
        if start != self._bytes:
            raise Failure("internal", "bytes came to the digest out of order", offset=start, expected=self._bytes)
        with self._meter.clock("digest").working():
            for state in self._states.values():
                state.update(view)
        self._bytes += len(view)

    def snapshot(self) -> Hashed | None:
        """Return how far the digests are, None if they cannot be taken up again. Blocks until updates under way are done."""
        return self._thread.submit(self._snapshot).result() if self._thread is not None else None

    def _snapshot(self) -> Hashed | None:
        states = {name: state.state.hex() for name, state in self._states.items() if isinstance(state, hash_state.KeptHash)}
        if len(states) < len(self._states):
            return None
        return Hashed(bytes=self._bytes, maker=hash_state.maker(), states=states)

    def results(self) -> dict[str, str]:
        """Return algorithm to hex."""
        return {name: state.hexdigest() for name, state in self._states.items()}

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


def _begin(algorithm: str) -> _State:
    try:
        return hash_state.KeptHash(algorithm)
    except ValueError:
        return hashlib.new(algorithm, usedforsecurity=False)
