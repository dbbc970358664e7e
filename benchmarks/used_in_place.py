"""A qcow2 as a running guest leaves it: written by qemu itself, cluster by cluster, in random order."""

import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CLUSTER = 64 << 10
DEADLINE = 20.0

OPTION_MAGIC = b"IHAVEOPT"
REQUEST = struct.Struct(">IHHQQI")
REQUEST_MAGIC, WRITE, DISCONNECT = 0x25609513, 1, 2


def write_in_random_order(raw: Path, out: Path) -> None:
    """Make `out` a qcow2 with the content of `raw`, whose clusters lie in an order that has nothing to do with the disk's."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(out), str(raw.stat().st_size)], check=True)
    path = out.with_name(f".{os.getpid()}.sock")
    argv = ["qemu-nbd", "--format=qcow2", "--cache=unsafe", f"--socket={path}", str(out)]
    server = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        with _connect(path, server) as link, raw.open("rb") as disk:
            offsets = list(clusters_with_data(disk.fileno(), raw.stat().st_size))
            random.Random(20_26).shuffle(offsets)
            for offset in offsets:
                _write(link, offset, os.pread(disk.fileno(), CLUSTER, offset))
            link.sendall(REQUEST.pack(REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0))
        if server.wait(120):
            raise OSError(f"qemu-nbd ended with {server.returncode}")
    finally:
        server.kill()
        server.wait()
        path.unlink(missing_ok=True)


def clusters_with_data(file: int, length: int) -> Iterator[int]:
    """Yield the offset of every cluster that a hole does not cover, in order."""
    position = 0
    while position < length:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError:
            return  # ENXIO: only a hole is left
        position = start // CLUSTER * CLUSTER
        end = os.lseek(file, start, os.SEEK_HOLE)
        while position < end:
            yield position
            position += CLUSTER


def _connect(path: Path, server: subprocess.Popen[bytes]) -> socket.socket:
    """Return a connection past the handshake (fixed newstyle, the export without a name)."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(DEADLINE)
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            link.connect(str(path))
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                link.close()
                raise
            time.sleep(0.02)
    _receive(link, 18)
    link.sendall(struct.pack(">I", 3) + OPTION_MAGIC + struct.pack(">II", 1, 0))
    _receive(link, 10)
    return link


def _write(link: socket.socket, offset: int, data: bytes) -> None:
    link.sendall(REQUEST.pack(REQUEST_MAGIC, 0, WRITE, 0, offset, len(data)) + data)
    _, error, _ = struct.unpack(">IIQ", _receive(link, 16))
    if error:
        raise OSError(error, os.strerror(error))


def _receive(link: socket.socket, size: int) -> bytes:
    data = link.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionError("qemu-nbd closed the connection")
    return data
