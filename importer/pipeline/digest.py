"""Digests of the bytes as served, in byte order, in a thread of their own; where libcrypto allows, they can be taken up again."""

import asyncio
import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
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
        self._kept: deque[tuple[int, dict[str, str]]] = deque()
        """States at some of the places passed since the last snapshot, in order."""
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
        self._keep()

    async def update(self, start: int, view: memoryview, keep: Sequence[int] = ()) -> None:
        """Hash the object's bytes from `start` on; calls must come in byte order. What was hashed before is passed over.

        `keep`: places in these bytes, ascending, from which an import may have to go on.
        """
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._update, start, view, keep)

    def _update(self, start: int, view: memoryview, keep: Sequence[int]) -> None:
        end = start + len(view)
        if end <= self._bytes:
            return
        if start > self._bytes:
            raise Failure("internal", "bytes came to the digest out of order", offset=start, expected=self._bytes)
        with self._meter.clock("digest").working():
            for stop in (*keep, end):
                if self._bytes < stop <= end:
                    for state in self._states.values():
                        state.update(view[self._bytes - start : stop - start])
                    self._bytes = stop
                if stop == self._bytes and stop in keep:
                    self._keep()

    def _keep(self) -> None:
        states = {name: state.state.hex() for name, state in self._states.items() if isinstance(state, hash_state.KeptHash)}
        if len(states) == len(self._states):
            self._kept.append((self._bytes, states))

    def snapshot(self, units: int, reach: int) -> Hashed | None:
        """Return the digests as they were at byte `reach` of the object, or where they were kept last before it; None if nowhere.

        `units`: how many leading pieces or blocks that covers, for the journal. What was kept before is forgotten.
        """
        while len(self._kept) > 1 and self._kept[1][0] <= reach:
            self._kept.popleft()
        if not self._kept or self._kept[0][0] > reach:
            return None
        at, states = self._kept[0]
        return Hashed(bytes=at, maker=hash_state.maker(), states=states, units=units)

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
