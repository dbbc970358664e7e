"""The catalogue of failures: complete, in order, and kept by everything that raises one."""

import ast
import re
from pathlib import Path

import pytest

import importer
from importer.api.failure import CATALOGUE, Exit, Failure

PACKAGE = Path(importer.__file__).parent


def _raised() -> list[tuple[str, str, int]]:
    """Return every literal code given to Failure( in the tree, with file and line."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or getattr(node.func, "id", "") != "Failure":
                continue
            literals = [
                part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant) and isinstance(part.value, str)
            ]
            if isinstance(node.args[0], ast.Constant | ast.IfExp):
                found += [(code, str(path.relative_to(PACKAGE)), node.lineno) for code in literals]
    return found


def test_every_code_that_is_raised_is_in_the_catalogue() -> None:
    assert not [(code, file, line) for code, file, line in _raised() if code not in CATALOGUE]


def test_every_code_of_the_catalogue_is_raised_somewhere() -> None:
    words = {
        word
        for path in PACKAGE.rglob("*.py")
        if path.name != "failure.py"
        for word in re.findall(r'"([a-z-]+)"', path.read_text())
    }
    assert not CATALOGUE.keys() - words


def test_the_rows_are_grouped_by_exit_status() -> None:
    order = [int(entry.exit) for entry in CATALOGUE.values()]
    assert order == sorted(order)


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_row_says_what_happened_and_what_to_do(code: str) -> None:
    entry = CATALOGUE[code]
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", code)
    assert entry.meaning
    assert entry.hint
    assert not entry.meaning.endswith("."), "a part of a sentence"
    assert "\n" not in entry.meaning + entry.hint, "one line"
    assert entry.exit is not Exit.OK
    assert entry.retryable == (entry.exit == 75)


@pytest.mark.parametrize("code", CATALOGUE)
def test_a_failure_prints_code_cause_evidence_and_advice(code: str) -> None:
    failure = Failure(code, "it went wrong", offset=4096, field="backing file")
    first, *facts, last = failure.render().splitlines()
    assert first == f"error[{code}]: it went wrong"
    assert [fact.strip() for fact in facts] == ["offset: 4096", "field: backing file"]
    assert last.strip() == f"what to do: {CATALOGUE[code].hint}"
    assert failure.as_json() == {
        "code": code,
        "exit": int(CATALOGUE[code].exit),
        "retryable": CATALOGUE[code].retryable,
        "cause": "it went wrong",
        "evidence": {"offset": "4096", "field": "backing file"},
        "hint": CATALOGUE[code].hint,
    }


def test_better_advice_replaces_the_catalogues() -> None:
    assert Failure("usage", "no", hint="try this").render().endswith("what to do: try this")


def test_a_code_that_is_not_in_the_catalogue_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        Failure("no-such-code", "it went wrong")


def test_the_exit_statuses_are_those_of_sysexits() -> None:
    names = ("OK", "USAGE", "DATA", "UNAVAILABLE", "SOFTWARE", "CANTCREAT", "IOERR", "TEMPFAIL", "NOPERM")
    assert {status.name: int(status) for status in Exit} == dict(zip(names, (0, 64, 65, 69, 70, 73, 74, 75, 77), strict=True))
