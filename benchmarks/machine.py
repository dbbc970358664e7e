"""What a reader needs to judge figures: the machine, the commit, the tools. No host name, no path."""

import os
import platform
import re
import subprocess
from pathlib import Path

TOOLS = {
    "qemu-img": "qemu-img --version",
    "curl": "curl --version",
    "aria2c": "aria2c --version",
    "nbdkit": "nbdkit --version",
    "nbdcopy": "nbdcopy --version",
    "nginx": "nginx -v",
    "pigz": "pigz --version",
    "igzip": "igzip --version",
    "zstd": "zstd --version",
    "xz": "xz --version",
    "python": "python3 --version",
}


def machine() -> dict[str, object]:
    """Return facts of this machine."""
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cores": os.cpu_count(),
        "processor": model[1] if model else platform.machine(),
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "kernel": platform.release(),
        "load_at_start": round(os.getloadavg()[0], 2),
        "tools": {tool: _version(command) for tool, command in TOOLS.items()},
    }


def commit(root: Path) -> str:
    """Return the commit, with a + if the tree holds changes."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True).stdout
    return (head or "none") + ("+" if changed else "")


def _version(command: str) -> str:
    try:
        done = subprocess.run(command.split(), capture_output=True, text=True, timeout=10)
    except OSError:
        return "absent"
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "unknown"
