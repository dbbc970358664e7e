"""Addresses: what they are, and who may lead to whom."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from importer.sources.addresses import Kind, classify, embedded, judge, literal, networks


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("93.184.216.34", Kind.PUBLIC),
        ("2606:2800:220:1::1", Kind.PUBLIC),
        ("10.1.2.3", Kind.PRIVATE),
        ("172.31.255.255", Kind.PRIVATE),
        ("172.32.0.0", Kind.PUBLIC),
        ("192.168.0.1", Kind.PRIVATE),
        ("100.64.0.1", Kind.PRIVATE),
        ("fd12::1", Kind.PRIVATE),
        ("127.0.0.1", Kind.LOOPBACK),
        ("127.255.0.1", Kind.LOOPBACK),
        ("::1", Kind.LOOPBACK),
        ("169.254.1.1", Kind.LINK_LOCAL),
        ("fe80::1%eth0", Kind.LINK_LOCAL),
        ("169.254.169.254", Kind.METADATA),
        ("100.100.100.200", Kind.METADATA),
        ("fd00:ec2::254", Kind.METADATA),
        ("224.0.0.1", Kind.MULTICAST),
        ("ff02::1", Kind.MULTICAST),
        ("0.0.0.0", Kind.UNSPECIFIED),
        ("::", Kind.UNSPECIFIED),
        ("255.255.255.255", Kind.BROADCAST),
        ("240.0.0.1", Kind.RESERVED),
        ("::ffff:127.0.0.1", Kind.LOOPBACK),
        ("::ffff:169.254.169.254", Kind.METADATA),
        ("::ffff:0:169.254.169.254", Kind.METADATA),
        ("::127.0.0.1", Kind.LOOPBACK),
        ("64:ff9b::a9fe:a9fe", Kind.METADATA),
        ("2002:a9fe:a9fe::1", Kind.METADATA),
        ("2002:7f00:1::", Kind.LOOPBACK),
        ("2001:0:1:2:3:4:80ff:fffe", Kind.LOOPBACK),
    ],
)
def test_an_address_is_what_it_stands_for(text: str, kind: Kind) -> None:
    assert classify(ip_address(text)) is kind


@given(st.ip_addresses(v=4))
def test_mapping_into_ipv6_changes_nothing(address: IPv4Address) -> None:
    mapped = IPv6Address(f"::ffff:{address}")
    assert embedded(mapped) == address
    for came_from in (None, Kind.PUBLIC, Kind.PRIVATE, Kind.LOOPBACK):
        assert judge(mapped, came_from=came_from) == judge(address, came_from=came_from)


@pytest.mark.parametrize("text", ["169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "224.0.0.1", "0.0.0.0"])
def test_some_addresses_are_refused_even_if_the_user_names_them_unless_allowed(text: str) -> None:
    address = ip_address(text)
    assert judge(address, came_from=None)
    assert judge(address, came_from=None, allowed=networks((text,))) is None


@pytest.mark.parametrize(
    ("came_from", "text", "refused"),
    [
        (None, "127.0.0.1", False),
        (None, "10.0.0.1", False),
        (Kind.PUBLIC, "93.184.216.34", False),
        (Kind.PUBLIC, "10.0.0.1", True),
        (Kind.PUBLIC, "::ffff:10.0.0.1", True),
        (Kind.PUBLIC, "::1", True),
        (Kind.PRIVATE, "10.0.0.1", False),
        (Kind.PRIVATE, "127.0.0.1", True),
        (Kind.PRIVATE, "93.184.216.34", False),
        (Kind.LOOPBACK, "127.0.0.1", False),
        (Kind.LOOPBACK, "10.0.0.1", False),
        (Kind.METADATA, "10.0.0.1", True),
    ],
)
def test_a_redirect_may_not_lead_further_inside(came_from: Kind | None, text: str, refused: bool) -> None:
    assert (judge(ip_address(text), came_from=came_from) is not None) is refused
    assert judge(ip_address(text), came_from=came_from, allowed=networks(("0.0.0.0/0", "::/0"))) is None


def test_a_network_allows_its_mapped_form_too() -> None:
    assert judge(ip_address("::ffff:10.0.0.1"), came_from=Kind.PUBLIC, allowed=networks(("10.0.0.0/8",))) is None


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("[::1]", "::1"),
        ("example.org", None),
        ("1.2.3.4.5", None),
        ("256.1.1.1", None),
        ("4294967296", None),
        ("089", None),
        ("", None),
        ("0x7fg", None),
    ],
)
def test_literal_hosts_are_read_as_the_c_library_reads_them(host: str, address: str | None) -> None:
    assert literal(host) == (ip_address(address) if address else None)


@given(st.text())
def test_reading_a_host_never_fails(host: str) -> None:
    literal(host)
