"""A token service for registries: real JWTs that a real docker-registry believes, over TLS."""

import base64
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from fakes.certificates import DAY, NOW, Authority

SERVICE = "registry.tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One request for a token."""

    user: str
    """"" for nobody."""
    scope: str
    service: str


@dataclass
class TokenService:
    """Gives tokens to whoever is in `users`; to nobody in particular too, where `anonymous` allows it."""

    folder: Path
    authority: Authority
    users: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
    life: int = 300
    """Seconds that a token is said to live, and does."""
    wanted: list[Wanted] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "token signer of the tests")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self._der = certificate.public_bytes(serialization.Encoding.DER)
        self.bundle = self.folder / "signer.pem"
        self.bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def __enter__(self) -> "TokenService":
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = service._answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        pair = self.authority.pairs["good"]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/token"
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(0.05), name="token service")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the token service did not end"

    def _answer(self, path: str, authorization: str) -> tuple[int, bytes]:
        query = {name: values[0] for name, values in parse_qs(urlsplit(path).query).items()}
        user, _, password = "", "", ""
        if authorization.startswith("Basic "):
            user, _, password = base64.b64decode(authorization[6:]).decode().partition(":")
        self.wanted.append(Wanted(user=user, scope=query.get("scope", ""), service=query.get("service", "")))
        if (user and self.users.get(user) != password) or (not user and not self.anonymous):
            return 401, b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}'
        return 200, json.dumps({"token": self._token(query.get("scope", "")), "expires_in": self.life}).encode()

    def _token(self, scope: str) -> str:
        kind, name, actions = scope.split(":")
        now = int(time.time())
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": SERVICE,
            "aud": SERVICE,
            "sub": "",
            "iat": now,
            "nbf": now - 60,
            "exp": now + self.life,
            "access": access,
        }
        head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(self._der).decode()]}
        signed = b".".join(_packed(json.dumps(part).encode()) for part in (head, claims))
        r, s = decode_dss_signature(self._key.sign(signed, ec.ECDSA(hashes.SHA256())))
        return (signed + b"." + _packed(r.to_bytes(32, "big") + s.to_bytes(32, "big"))).decode()


def _packed(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
