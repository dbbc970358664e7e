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
    fruitless_attempts: int = 12
    """Attempts in a row, over all connections, that brought nothing at all before a server that answers at once is given up."""


@dataclass(slots=True, kw_only=True)
class Patience:
    """Decides after each broken attempt; one for all connections of an import."""

    policy: Policy
    connections: int
    """How many may be open now; lowered when the server is crowded, never raised again."""
    last_progress: float = 0.0
    fruitless: int = 0
    retries: int = 0
    last_reason: str = ""

    def progressed(self, now: float) -> None:
        """Note that bytes arrived."""
        self.last_progress = now
        self.fruitless = 0

    def broke(self, reason: str, *, crowded: bool, retry_after: float | None, chance: float) -> float:
        """Note a broken attempt and return the seconds to wait before the next; `chance` is in 0..1."""
        self.retries += 1
        self.fruitless += 1
        self.last_reason = reason
        if crowded and self.connections > 1:
            self.connections -= 1
            self.fruitless = 0
        delay = (
            min(self.policy.longest_delay, self.policy.first_delay * 2 ** min(self.fruitless - 1, 10)) if self.fruitless else 0.05
        )
        return max(delay * (0.5 + chance / 2), min(retry_after or 0.0, self.policy.give_up_seconds))

    def exhausted(self, now: float) -> bool:
        """Return True once going on is pointless."""
        return now - self.last_progress > self.policy.give_up_seconds or self.fruitless >= self.policy.fruitless_attempts
