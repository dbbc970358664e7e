"""The reference says what the program does: every code, every exit status, every option; and no link is dead."""

import argparse
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from importer.api.failure import Exit
from importer.api.version import VERSION
from slipstream.__main__ import parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
COMMANDS = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


def test_the_page_of_failures_is_the_catalogue():
    expected = runpy.run_path(str(ROOT / "scripts/failure-table"))["page"]()
    assert (ROOT / "docs/reference/failures.md").read_text() == expected, "run: .venv/bin/python scripts/failure-table"


@pytest.mark.parametrize("command", ["import", "inspect"])
def test_the_page_of_the_command_line_has_every_option_and_no_other(command):
    text = (ROOT / "docs/reference/cli.md").read_text()
    section = text.partition(f"\n## slipstream {command}\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(--[a-z0-9-]+)", section, re.MULTILINE))
    known = {option for action in COMMANDS[command]._actions for option in action.option_strings if option.startswith("--")}
    if command == "inspect":
        assert told == {"--for", "--json"}
        shared = set(re.findall(r"`(--[a-z0-9-]+)`", section.partition("As for import:")[2]))
        assert told | shared | {"--help"} == known
    else:
        assert told | {"--help"} == known


def test_the_page_of_the_command_line_has_every_exit_status():
    text = (ROOT / "docs/reference/cli.md").read_text()
    assert {int(found) for found in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)} == {int(status) for status in Exit}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_the_version_is_the_one_of_the_package():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
