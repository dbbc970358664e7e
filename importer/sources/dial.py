"""Who is really connected to: the check made on the address of every socket, whatever the name resolved to."""

import asyncio
import socket
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from aiohappyeyeballs import start_connection

from importer.sources.addresses import Address, Kind, Network, classify, judge, literal


class AddressRefused(OSError):
    """No connection was tried: the address is one a source must not lead to."""


@dataclass(slots=True, kw_only=True)
class Hop:
    """One request on its way: what to hold its connections to, and what became of them."""

    came_from: Kind | None
    """Kind of the first origin's address; None while that one is asked."""
    proxied: bool = False
    """The socket leads to a proxy, which the user chose; the far address is out of sight."""
    named: Address | None = None
    """What a proxied URL itself tells of the far address."""
    refused: tuple[str, str] | None = None
    """Address and reason of the last refusal."""
    dialled: list[socket.socket] = field(default_factory=list)
    last: str = ""

    def peer(self) -> str | None:
        """Return the address that was connected, None if a kept connection was used."""
        for sock in self.dialled:
            try:
                return str(sock.getpeername()[0])
            except OSError:
                continue
        return self.last or None

    def kind(self) -> Kind | None:
        """Return the kind of the address that was connected, None if it is out of sight."""
        if self.proxied:
            return None if self.named is None else classify(self.named)
        peer = self.peer()
        return None if peer is None else classify(ip_address(peer))


CURRENT: ContextVar[Hop] = ContextVar("hop")
"""The hop of the running task: a socket factory is told an address but not for whom it is."""


class Guard:
    """Makes sockets for addresses that may be connected to, and raises AddressRefused for the others."""

    def __init__(self, allowed: tuple[Network, ...]) -> None:
        """Allow `allowed` networks whatever they are."""
        self.allowed = allowed

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Return a socket for an address as getaddrinfo describes it (aiohttp's socket_factory)."""
        family, kind, protocol, _, target = info
        hop = CURRENT.get()
        if not hop.proxied:
            reason = judge(ip_address(target[0]), came_from=hop.came_from, allowed=self.allowed)
            if reason is not None:
                hop.refused = (str(target[0]), reason)
                raise AddressRefused(f"{target[0]}: {reason}")
        sock = socket.socket(family, kind, protocol)
        hop.last = str(target[0])
        hop.dialled.append(sock)
        return sock


async def connect(guard: Guard, hop: Hop, host: str, port: int) -> socket.socket:
    """Return a socket connected to one of the host's addresses, as aiohttp would: only to such as the guard allows.

    Raises OSError: socket.gaierror where the name does not resolve, AddressRefused where no address may be tried.
    """
    flags = socket.AI_ADDRCONFIG if literal(host) is None else socket.AI_NUMERICHOST
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)
    token = CURRENT.set(hop)
    try:
        return await start_connection(found, happy_eyeballs_delay=0.25, socket_factory=guard.socket)
    finally:
        CURRENT.reset(token)
