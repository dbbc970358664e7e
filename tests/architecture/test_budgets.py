"""Budgets, so that drift is noticed: import contracts, file and function sizes, what the door costs."""

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSES = ("slipstream", "machinery", "importer")
SOURCES = sorted(path for house in HOUSES for path in (ROOT / house).rglob("*.py"))
MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
LONGER_FILES: dict[str, int] = {}
"""Path to its own limit, with the reason in a comment. A shorter list is better."""
LONGER_FUNCTIONS: dict[str, int] = {}
"""path:name to its own limit."""
MOST_MODULES_FOR_HELP = 160
"""Modules in sys.modules after --help; 122 when written, half of them the interpreter's own."""
MOST_CPU_SECONDS_FOR_HELP = 0.25
"""0.05 when written; asyncio would add 0.06, rich as much, aiohttp 0.2."""
HEAVY = {"aiohttp", "rich", "ssl", "isal", "zstandard", "requests", "kubernetes", "boto3", "cryptography", "importlib.metadata"}

_AFTER = """
import json, sys
from slipstream.__main__ import main
try:
    status = main({argv!r})
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(*argv: str) -> list[str]:
    script = _AFTER.format(argv=list(argv))
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(ended.stderr.splitlines()[-1])[1]


def test_the_import_contracts_hold():
    tool = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run([tool, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path):
    name, text = str(path.relative_to(ROOT)), path.read_text()
    assert len(text.splitlines()) <= LONGER_FILES.get(name, MOST_FILE_LINES)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGER_FUNCTIONS.get(f"{name}:{node.name}", MOST_FUNCTION_LINES), node.name


def test_exceptions_are_still_needed():
    for name in LONGER_FILES:
        assert len((ROOT / name).read_text().splitlines()) > MOST_FILE_LINES, f"{name} needs no exception any more"


@pytest.mark.parametrize("argv", [("--help",), ("import", "--help"), ("import",), ("import", "http://x/", "t", "--no-such")])
def test_help_and_bad_command_lines_load_nothing_heavy(argv):
    loaded = modules_after(*argv)
    assert HEAVY.isdisjoint(loaded)
    assert len(loaded) <= MOST_MODULES_FOR_HELP


def test_help_costs_little_time():
    def cpu_seconds() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    costs = []
    for _ in range(3):
        before = cpu_seconds()
        subprocess.run([sys.executable, "-m", "slipstream", "--help"], cwd=ROOT, capture_output=True, timeout=60, check=True)
        costs.append(cpu_seconds() - before)
    assert min(costs) <= MOST_CPU_SECONDS_FOR_HELP


def test_rooms_hold_only_their_sign():
    for path in SOURCES:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert len(body) == 1, f"{path.relative_to(ROOT)} holds more than a docstring"
