"""A real web server for the images: nginx with its own prefix, here or in a network namespace."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

CONFIG = """
{user}
worker_processes 2;
daemon off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen {address}:{port}; root {root}; default_type application/octet-stream; }}
}}
"""


@contextmanager
def nginx(prefix: Path, root: Path, *, address: str = "127.0.0.1", port: int = 0, inside: Sequence[str] = ()) -> Iterator[str]:
    """Serve the files of `root`; yields the URL of it, without a slash at the end.

    Port 0: a free one. `inside` is the command that enters the namespace which has the address.
    """
    shutil.rmtree(prefix, ignore_errors=True)
    prefix.mkdir(parents=True)
    port = port or _free_port(address)
    user = "user root;" if os.geteuid() == 0 else ""
    (prefix / "nginx.conf").write_text(CONFIG.format(user=user, address=address, port=port, root=root.resolve()))
    argv = [*inside, "nginx", "-p", str(prefix.resolve()), "-c", "nginx.conf", "-e", "error.log"]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)  # ^C is for us, who end it
    try:
        _wait(address, port, server)
        yield f"http://{address}:{port}"
    finally:
        end(server)


def end(server: subprocess.Popen[bytes]) -> None:
    """End a server that we started."""
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(10)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _wait(address: str, port: int, server: subprocess.Popen[bytes]) -> None:
    """Return once the server takes connections."""
    deadline = time.monotonic() + 10
    while True:
        try:
            with socket.create_connection((address, port), timeout=1):
                return
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def warm(path: Path) -> None:
    """Read a file once, so that every competitor finds it in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(8 << 20):
            pass
