"""A certificate authority for one test session, and certificates with something wrong about them."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
HERE: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
ELSEWHERE: list[x509.GeneralName] = [x509.DNSName("elsewhere.example")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key, in PEM files."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Whom the good certificates are signed by."""

    ca_file: Path
    pairs: dict[str, Pair]
    """good, expired, self-signed, wrong-host."""


def make(folder: Path) -> Authority:
    """Write an authority and its certificates into `folder`."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = _name("Slipstream test authority")
    ca = _sign(ca_name, ca_key, ca_name, ca_key, [], authority=True, start=NOW - DAY, end=NOW + 30 * DAY)
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    pairs = {}
    for label, hosts, start, end, signed_by_itself in (
        ("good", HERE, NOW - DAY, NOW + 30 * DAY, False),
        ("expired", HERE, NOW - 30 * DAY, NOW - DAY, False),
        ("wrong-host", ELSEWHERE, NOW - DAY, NOW + 30 * DAY, False),
        ("self-signed", HERE, NOW - DAY, NOW + 30 * DAY, True),
    ):
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{label}.test")
        issuer, issuer_key = (name, key) if signed_by_itself else (ca_name, ca_key)
        certificate = _sign(name, key, issuer, issuer_key, hosts, authority=False, start=start, end=end)
        pairs[label] = _write(folder, label, certificate, key)
    return Authority(ca_file=ca_file, pairs=pairs)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _sign(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    hosts: list[x509.GeneralName],
    *,
    authority: bool,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _write(folder: Path, label: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Pair:
    pair = Pair(certificate=folder / f"{label}.pem", key=folder / f"{label}.key")
    pair.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pair.key.touch(mode=0o600)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return pair
