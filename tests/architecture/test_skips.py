"""A test is skipped for something that this machine lacks, by name; on CI that is a failure: see tests/tools.py."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OWN = re.compile(r"pytest\.(mark\.)?(skip|skipif|importorskip|xfail)\b|unittest\.skip")


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.name)
def test_every_skip_fails_on_ci(path: Path) -> None:
    if path != Path(__file__):
        assert not OWN.search(path.read_text()), "use `without` or `needs` of tests/tools.py"
