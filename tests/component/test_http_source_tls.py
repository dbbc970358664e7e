"""Certificates good and bad, made on the spot and shown by a real TLS server on the loopback."""

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from importer.api.failure import Failure
from importer.api.request import Access
from importer.sources.client import HttpPolicy
from importer.sources.http import HttpSource
from machinery.service import tls

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
QUICK = HttpPolicy(sock_read=2, sock_connect=5, answer=5, probe_tries=2, backoff=0.01)


@dataclass
class Authority:
    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> str:
        return str(self.folder / "ca.pem")

    def context(self, host: str, until: datetime.datetime = NOW + DAY, self_signed: bool = False) -> ssl.SSLContext:
        """Return a server context with a certificate for `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = signed(host, key, None if self_signed else self, until)
        path = self.folder / "server.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def signed(host: str, key: ec.EllipticCurvePrivateKey, by: Authority | None, until: datetime.datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    try:
        alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        alternative = x509.DNSName(host)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(by.certificate.subject if by else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(until - 10 * DAY)
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=host == "test authority", path_length=None), critical=True)
    )
    return builder.sign(by.key if by else key, hashes.SHA256())


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = signed("test authority", key, None, NOW + DAY)
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(tmp_path, key, certificate)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if context is None:
                await reader.read(1)
                writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                return
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-3/4\r\nContent-Length: 4\r\n\r\ndisk")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/disk.img"
    finally:
        listener.close()


async def failing(url: str, access: Access) -> Failure:
    with pytest.raises(Failure) as caught:
        await HttpSource.open(url, access, QUICK)
    assert caught.value.code == "tls"
    return caught.value


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


async def test_a_server_known_by_the_given_authority_is_trusted(authority: Authority) -> None:
    async with serving(authority.context("127.0.0.1")) as url:
        source = await HttpSource.open(url, Access(ca_file=authority.file), QUICK)
        assert source.head == b"disk"
        await source.close()


async def test_an_unknown_authority_is_refused_with_the_certificate_and_the_sets_tried(authority: Authority) -> None:
    async with serving(authority.context("127.0.0.1")) as url:
        failure = await failing(url, Access())
    assert failure.evidence["certificate_subject"] == "commonName=127.0.0.1"
    assert failure.evidence["certificate_issuer"] == "commonName=test authority"
    assert failure.evidence["certificate_names"] == "127.0.0.1"
    assert "system" in failure.evidence["authorities"]
    assert "--ca-file" in failure.hint


async def test_an_expired_certificate_is_named_as_expired(authority: Authority) -> None:
    async with serving(authority.context("127.0.0.1", until=NOW - DAY)) as url:
        failure = await failing(url, Access(ca_file=authority.file))
    assert "expired" in failure.cause
    assert "expired" in failure.hint
    assert str((NOW - DAY).year) in failure.evidence["certificate_valid_until"]
    assert authority.file in failure.evidence["authorities"]


async def test_a_self_signed_certificate_is_named_as_such(authority: Authority) -> None:
    async with serving(authority.context("127.0.0.1", self_signed=True)) as url:
        failure = await failing(url, Access())
    assert "self-signed" in failure.hint


async def test_a_certificate_for_another_host_shows_its_names(authority: Authority) -> None:
    async with serving(authority.context("images.example")) as url:
        failure = await failing(url, Access(ca_file=authority.file))
    assert failure.evidence["certificate_names"] == "images.example"
    assert "name it was made for" in failure.hint


async def test_insecure_is_obeyed_and_noted(authority: Authority) -> None:
    async with serving(authority.context("images.example")) as url:
        source = await HttpSource.open(url, Access(insecure=True), QUICK)
        assert any("--insecure" in note for note in source.facts.notes)
        await source.close()


async def test_plain_http_on_a_tls_port_says_so() -> None:
    async with serving(None) as url:
        failure = await failing(url, Access())
    assert "http://" in failure.hint


async def test_a_file_without_certificates_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing\n")
    with pytest.raises(Failure) as caught:
        await HttpSource.open("https://127.0.0.1:1/", Access(ca_file=str(tmp_path / "empty.pem")), QUICK)
    assert caught.value.code == "usage"


async def test_asking_nobody_for_a_certificate_tells_nothing() -> None:
    assert await tls.peer_certificate("127.0.0.1", 1, "localhost") == {}


def test_the_context_asks_for_modern_tls() -> None:
    assert tls.client_context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert tls.client_context().verify_mode == ssl.CERT_REQUIRED


def test_only_contexts_made_without_authorities_trust_nobody(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", authority.file)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    with tls.without_authorities():
        blind = ssl.create_default_context()
    assert blind.get_ca_certs() == []
    assert blind.verify_mode == ssl.CERT_REQUIRED
    assert len(tls.client_context().get_ca_certs()) == 1
    assert os.environ["SSL_CERT_FILE"] == authority.file
    assert "SSL_CERT_DIR" not in os.environ
