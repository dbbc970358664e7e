"""A real nginx with a prefix of its own, serving one directory over HTTP and, with certificates, over HTTPS."""

import os
import re
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fakes.certificates import Authority
from tools import tool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One line of the access log."""

    method: str
    path: str
    status: int
    sent: int
    """Bytes of body."""
    range: str


class Nginx:
    """Serves `folder`. Stopped by its process id."""

    def __init__(self, prefix: Path, authority: Authority | None = None) -> None:
        self.folder = prefix / "files"
        self._prefix = prefix
        self._authority = authority
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, on other ports if somebody was quicker to take one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for _ in range(5):
            self._configure()
            self._process = subprocess.Popen(
                [tool("nginx"), "-p", self._prefix, "-c", "nginx.conf", "-e", "error.log"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if self._ready():
                return
            self.stop()
        raise AssertionError(f"nginx did not start:\n{(self._prefix / 'error.log').read_text()[-2000:]}")

    def stop(self) -> None:
        """End it, by its process id."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)

    def url(self, name: str, server: str = "http") -> str:
        """Return a file's URL at one of the servers: http, slow, good, expired, wrong-host, self-signed."""
        scheme = "http" if server in ("http", "slow") else "https"
        return f"{scheme}://127.0.0.1:{self._ports[server]}/{quote(name)}"

    def asked(self, name: str, expect: int = 0) -> list[Asked]:
        """Return the requests for a file so far; wait (at most 5 s) until the log holds `expect` of them."""
        end = time.monotonic() + 5
        while True:
            found = [line for line in self._log() if line.path == f"/{quote(name)}"]
            if len(found) >= expect or time.monotonic() > end:
                return found
            time.sleep(0.02)  # nginx logs a request after its answer was read

    def _log(self) -> list[Asked]:
        lines = (self._prefix / "access.log").read_text().splitlines()
        parts = (line.split("\t") for line in lines)
        return [Asked(method=m, path=p, status=int(s), sent=int(b), range=r) for m, p, s, b, r in parts]

    def _configure(self) -> None:
        labels = ["http", "slow", *(self._authority.pairs if self._authority else ())]
        self._ports = dict(zip(labels, free_ports(len(labels)), strict=True))
        blocks = "\n".join(self._block(label, port) for label, port in self._ports.items())
        text = _CONFIGURATION.format(prefix=self._prefix, folder=self.folder, servers=blocks)
        # Started by root, nginx would serve as another user, who may not enter the directories of the tests.
        (self._prefix / "nginx.conf").write_text(("user root;\n" if os.geteuid() == 0 else "") + text)

    def _block(self, label: str, port: int) -> str:
        if label == "http":
            return f"server {{ listen 127.0.0.1:{port}; }}"
        if label == "slow":  # long enough on the way for a test to do something meanwhile
            return f"server {{ listen 127.0.0.1:{port}; limit_rate 1m; }}"
        assert self._authority
        pair = self._authority.pairs[label]
        return f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key}; }}"

    def _ready(self) -> bool:
        assert self._process
        end = time.monotonic() + 10
        while time.monotonic() < end and self._process.poll() is None:
            if all(_answers(port) for port in self._ports.values()):
                # Another process may hold the port: then ours is about to end.
                return self._process.poll() is None and not re.search(r"\[emerg\]", self._errors())
            time.sleep(0.02)
        return False

    def _errors(self) -> str:
        path = self._prefix / "error.log"
        return path.read_text() if path.exists() else ""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens at just now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


_CONFIGURATION = """
worker_processes 1;
daemon off;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format asked '$request_method\\t$uri\\t$status\\t$body_bytes_sent\\t$http_range';
    access_log {prefix}/access.log asked;
    client_body_temp_path {prefix}/tmp-body;
    proxy_temp_path {prefix}/tmp-proxy;
    fastcgi_temp_path {prefix}/tmp-fastcgi;
    uwsgi_temp_path {prefix}/tmp-uwsgi;
    scgi_temp_path {prefix}/tmp-scgi;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000;
    root {folder};
    {servers}
}}
"""
