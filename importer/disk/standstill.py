"""When a tool is given up that neither ends nor does anything. Pure: time and signs are arguments."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Signs:
    """What shows whether a tool gets on."""

    served: int
    """Reads of the image it has asked us for so far."""
    moved: int
    """Bytes the kernel counts as read and written by it so far."""
    held: bool
    """True if something outside it holds it up: a read that waits for its bytes, a device."""


@dataclass(slots=True)
class Standstill:
    """Watches for a tool that spins, or waits for what never comes."""

    limit: float
    """Seconds without a sign of work before it is given up."""
    _last: Signs | None = None
    _since: float = 0.0

    def hopeless(self, now: float, signs: Signs) -> bool:
        """Take one look into account; True once nothing has moved, and nothing held it up, for `limit` seconds."""
        last, self._last = self._last, signs
        if last is None or signs.held or (signs.served, signs.moved) != (last.served, last.moved):
            self._since = now
        return now - self._since >= self.limit
