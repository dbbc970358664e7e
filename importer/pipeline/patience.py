"""When to try again, with how many connections, and when to give up. Pure: time and chance are arguments."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Bounds of perseverance, in seconds and bytes."""

    stall_seconds: float = 20.0
    """A connection that brought fewer than `stall_bytes` in this time is cut; its missing bytes are asked for anew."""
    stall_bytes: int = 80 << 10
    """4 KiB a second: slower than any link worth waiting for, faster than a slow-loris."""
    give_up_seconds: float = 300.0
    """Without a single new byte for this long the import ends with 75."""
    first_delay: float = 0.25
    longest_delay: float = 20.0


@dataclass(slots=True, kw_only=True)
class Patience:
    """Decides after each broken attempt; one for all connections of an import."""

    policy: Policy
    connections: int
    """How many may be open now; lowered when the server is crowded, never raised again."""
    retries: int = 0
    fruitless: int = 0
    """Broken attempts since the last progress or the last connection given up."""
    failing_since: float | None = None
    """When the trouble began: an idle or slow consumer is none. None while all is well."""
    _gained: int = 0

    def progressed(self, now: float, size: int) -> None:
        """Note that `size` bytes arrived; a trickle is no progress: the trouble ends after `stall_bytes` of them."""
        if self.failing_since is None:
            return
        self._gained += size
        if self._gained >= self.policy.stall_bytes:
            self.recovered()

    def recovered(self) -> None:
        """Note that an attempt brought all it was asked for."""
        self.failing_since = None
        self.fruitless = self._gained = 0

    def broke(self, now: float, *, began: float, crowded: bool, retry_after: float | None, chance: float) -> float:
        """Note an attempt that began at `began` and broke; return the seconds to wait. `chance` is in 0..1."""
        self.failing_since = began if self.failing_since is None else self.failing_since
        self.retries += 1
        delay = min(
            self.policy.longest_delay, self.policy.first_delay * 2.0 ** min(self.fruitless // max(1, self.connections), 10)
        )
        self.fruitless += 1
        if crowded and self.connections > 1:
            self.connections -= 1
            self.fruitless = 0
        return max(delay * (0.5 + chance / 2), min(retry_after or 0.0, self.policy.give_up_seconds))

    def exhausted(self, now: float) -> bool:
        """Return True once going on is pointless."""
        return self.failing_since is not None and now - self.failing_since >= self.policy.give_up_seconds
