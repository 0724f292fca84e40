"""The docs: every file they name exists, no line is too long, and the site is built and asks nothing of other hosts."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
_FILE = re.compile(r"\b(?:tests|benchmarks|scripts|examples|docs)/[\w./-]+\.(?:py|md|toml|png)\b")
_LONGEST = 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_names_files_that_exist_in_lines_that_fit(page: Path) -> None:
    text = page.read_text("utf-8")
    assert [name for name in _FILE.findall(text) if not (ROOT / name).exists()] == []
    # A row of a table cannot be broken; the other two are written by a program, and by whoever releases.
    if page.name not in ("reliability.md", "CHANGELOG.md"):
        assert [line for line in text.splitlines() if len(line) > _LONGEST and not line.startswith("|")] == []


class Fetched(HTMLParser):
    """What a browser fetches on its own for a page: scripts, styles, fonts, pictures, frames; links are not."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video"):
            self.addresses.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preconnect", "preload"):
            self.addresses.append(given.get("href") or "")


def test_the_site_is_built_strictly_and_works_offline(tmp_path: Path) -> None:
    """Strict: a dead link, a heading that is not there and a docstring that does not parse are errors."""
    for name in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    built = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=500
    )
    assert built.returncode == 0, built.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        reader = Fetched()
        reader.feed(page.read_text("utf-8"))
        assert [address for address in reader.addresses if re.match(r"(https?:)?//", address)] == [], page
    shown = (tmp_path / "site" / "api" / "pipelines" / "index.html").read_text("utf-8")
    assert "GenerateConfig" in shown
    assert "Example" in shown
