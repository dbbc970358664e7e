"""Which addresses an image source may lead to. Pure: judges addresses, resolves nothing.

The tables are our own because `ipaddress.is_private` and its like changed their meaning between
patch releases of Python, and a security decision must not.
"""

import re
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network


class Kind(StrEnum):
    """What an address is, as far as a refusal is concerned."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    METADATA = "cloud metadata"
    MULTICAST = "multicast"
    UNSPECIFIED = "unspecified"
    BROADCAST = "broadcast"
    RESERVED = "reserved"


_TABLE: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    # First match wins: the metadata services of AWS/GCP/Azure/OpenStack, Alibaba, Oracle and Azure's wire server.
    (Kind.METADATA, ("169.254.169.254/32", "169.254.170.2/32", "100.100.100.200/32", "192.0.0.192/32", "168.63.129.16/32")),
    (Kind.METADATA, ("fd00:ec2::254/128", "fd20:ce::254/128")),
    (Kind.LOOPBACK, ("127.0.0.0/8", "::1/128")),
    (Kind.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (Kind.UNSPECIFIED, ("0.0.0.0/8", "::/128")),  # Linux connects 0.0.0.0 to the loopback
    (Kind.BROADCAST, ("255.255.255.255/32",)),
    (Kind.MULTICAST, ("224.0.0.0/4", "ff00::/8")),
    (Kind.RESERVED, ("240.0.0.0/4",)),
    (Kind.PRIVATE, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "192.0.0.0/24", "198.18.0.0/15")),
    (Kind.PRIVATE, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "100::/64")),
    (Kind.PRIVATE, ("fc00::/7", "fec0::/10", "64:ff9b:1::/48")),
)
_NETWORKS: tuple[tuple[Kind, Network], ...] = tuple((kind, ip_network(text)) for kind, texts in _TABLE for text in texts)

_LAST_32_BITS = tuple(
    IPv6Network(text)
    for text in (
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated
        "64:ff9b::/96",  # NAT64
        "::/96",  # IPv4-compatible, long deprecated
    )
)
_SIX_TO_FOUR = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")

_DEPTH = {Kind.PUBLIC: 0, Kind.PRIVATE: 1, Kind.LOOPBACK: 2}


def embedded(address: Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for, None if for none."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if number > 1 and any(address in network for network in _LAST_32_BITS):
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    if address in _TEREDO:
        return IPv4Address(number & 0xFFFFFFFF ^ 0xFFFFFFFF)
    return None


def classify(address: Address) -> Kind:
    """Return what `address` is; an IPv6 address that stands for an IPv4 one is what that one is."""
    inner = embedded(address)
    if inner is not None:
        return classify(inner)
    return next((kind for kind, network in _NETWORKS if address.version == network.version and address in network), Kind.PUBLIC)


def judge(address: Address, *, came_from: Kind | None, allowed: tuple[Network, ...] = ()) -> str | None:
    """Return why a connection to `address` is refused, None if it may be made.

    `came_from` is the kind of the first origin's address, None if this is the first origin: the user named
    it, so it may be private or loopback. A redirect may not lead further inside than where it came from.
    """
    inner = embedded(address)
    for network in allowed:
        if any(one.version == network.version and one in network for one in (address, inner) if one is not None):
            return None
    kind = classify(address)
    if kind not in _DEPTH:
        return f"{kind} addresses are never image sources"
    if came_from is not None and _DEPTH[kind] > _DEPTH.get(came_from, 0):
        return f"a {came_from} server may not lead to a {kind} address"
    return None


def networks(texts: tuple[str, ...]) -> tuple[Network, ...]:
    """Parse networks in CIDR notation, or single addresses. Raises ValueError naming the bad one."""
    return tuple(ip_network(text, strict=False) for text in texts)


def literal(host: str) -> Address | None:
    """Return the address that a URL's host spells, None if it is a name.

    Understands what the C library does: 127.1, 2130706433, 0x7f.1 and 0177.0.0.1 are all 127.0.0.1.
    """
    text = host.strip("[]").rstrip(".")
    try:
        return ip_address(text)
    except ValueError:
        return _numbers_and_dots(text)


def _numbers_and_dots(text: str) -> IPv4Address | None:
    parts = text.split(".")
    if len(parts) > 4 or not all(re.fullmatch(r"0[xX][0-9a-fA-F]*|[0-9]+", part) for part in parts):
        return None
    try:
        *leading, last = (_c_number(part) for part in parts)
    except ValueError:
        return None
    if any(part > 255 for part in leading) or last >= 1 << 8 * (4 - len(leading)):
        return None
    high = sum(part << 8 * (3 - place) for place, part in enumerate(leading))
    return IPv4Address(high + last)


def _c_number(text: str) -> int:
    if text[:2].lower() == "0x":
        return int(text[2:] or "0", 16)
    return int(text, 8) if text.startswith("0") else int(text)
