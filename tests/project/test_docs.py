"""The documents: every option, links that lead somewhere, commands that can be typed, a site without a network."""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from chromium import browser, find_browser
from conftest import ROOT

from h2a_batch.command.convert import build_parser
from h2a_batch.command.sheet import build_parser as build_sheet_parser

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", ".github/SECURITY.md", "train/README.md")),
    *sorted((ROOT / "scripts").rglob("README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "h2a-batch": build_parser,
    "h2a-batch compare": functools.partial(build_sheet_parser, "h2a-batch compare"),
    "h2a-sheet": functools.partial(build_sheet_parser, "h2a-sheet"),
}
HELP = {
    "h2a-batch": ["-m", "h2a_batch", "--help"],
    "h2a-sheet": ["-c", "import sys; from h2a_batch.__main__ import sheet; sys.argv[1:] = ['--help']; sheet()"],
}


def help_of(command: str) -> dict[str, set[str]]:
    """The options that ``--help`` lists, each with the values that it may have."""
    done = subprocess.run([sys.executable, *HELP[command]], cwd=ROOT, capture_output=True, text=True, check=True)
    options: dict[str, set[str]] = {}
    for line in re.findall(r"^  (-\S.*?)(?:  |$)", done.stdout, re.MULTILINE):
        values = set(",".join(re.findall(r"{(.*?)}", line)).split(",")) - {""}
        options |= dict.fromkeys(re.findall(r"(?<!\S)--?[a-z][a-z-]*", line), values)
    return options


def page_of(command: str) -> dict[str, str]:
    """The options in the first column of a command's tables on the page of options, each with its row."""
    page = (ROOT / "docs" / "options.md").read_text()
    part = page.partition(f"\n## {command}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`-.*?) \| (.*) \|$", part, re.MULTILINE)
    return {name: row for names, row in rows for name in re.findall(r"`(--?[a-z][a-z-]*)", names)}


@pytest.mark.parametrize("command", HELP)
def test_the_page_of_options_has_the_options_of_the_help_and_no_others(command: str) -> None:
    listed, told = help_of(command), page_of(command)
    assert len(listed) > 10
    assert set(listed) == set(told)
    for option, values in listed.items():
        assert values <= set(re.findall(r"`(.*?)`", told[option])), option


def blocks(text: str) -> Iterator[str]:
    """The blocks of code of a document: fenced ones, and indented ones."""
    yield from re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    yield from re.findall(r"(?:^    .*\n)+", text, re.MULTILINE)


def commands(document: Path) -> list[list[str]]:
    """The words of each command in a document's blocks of code; a line that ends in a backslash goes on."""
    lines = "\n".join(blocks(document.read_text())).replace("\\\n", " ").splitlines()
    found = [line.strip().removeprefix("$ ") for line in lines]
    ours = re.compile(r"(\S*/)?(h2a-batch|h2a-sheet|python -m (train|h2a_batch)) ")
    return [shlex.split(line, comments=True) for line in found if ours.match(line)]


def check_command(words: list[str]) -> None:
    """Have the real parser read a command; one of `python -m train` has to be there."""
    if words[1:3] == ["-m", "train"]:
        name = words[3].replace("-", "_")
        assert name == "COMMAND" or (ROOT / "train" / "commands" / f"{name}.py").is_file(), words
        return
    name = words[0].rpartition("/")[2]
    if words[1] == "compare":
        name, words = f"{name} compare", words[1:]
    PARSERS[name]().parse_intermixed_args(words[1:])


def is_usage(words: list[str]) -> bool:
    """Whether this shows the form of a command, as in ``h2a-batch [options] IN OUT``."""
    return any(word.startswith("[") or word == "..." for word in words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_can_be_typed(document: Path) -> None:
    for words in commands(document):
        if not is_usage(words):
            try:
                check_command(words)
            except SystemExit:
                pytest.fail(f"{shlex.join(words)}: the parser does not take it")


def test_the_commands_of_documents_are_found_and_a_wrong_one_is_seen() -> None:
    found = [words for document in DOCUMENTS for words in commands(document)]
    assert len(found) > 30 and {"h2a-batch", "h2a-sheet"} <= {words[0].rpartition("/")[2] for words in found}
    for line in ("h2a-batch in out --no-such", "h2a-sheet in out a.pdf --theme red", "h2a-batch compare a b --watch"):
        with pytest.raises(SystemExit):
            check_command(line.split())


def anchors(document: Path) -> set[str]:
    """The names that GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S), re.M)
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", heading)).lower() for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", document.read_text())
    links = [*re.findall(r"\]\(([^)\s]+)", text), *re.findall(r"^\[.+?\]: (\S+)", text, re.MULTILINE)]
    links += re.findall(r"<(?:img|a)\b[^>]*?(?:src|href)=\"([^\"]+)\"", text)
    for link in links:
        parts = urlsplit(link)
        if parts.scheme in ("http", "https", "mailto"):
            continue
        target = document.parent / unquote(parts.path) if parts.path else document
        assert target.exists() and target.resolve().is_relative_to(ROOT), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


def test_readme_is_short_and_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in readme, page.name


def test_the_changelog_names_every_version_with_its_date_and_link() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\](.*)$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "") and len(versions) > 1
    for version, date in versions[1:]:
        assert re.fullmatch(r" - \d{4}-\d\d-\d\d", date), version
    assert [version for version, _ in versions] == re.findall(r"^\[(.+?)\]: ", text, re.MULTILINE)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", text, re.MULTILINE)) <= kinds


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", ROOT / "docs" / "mkdocs.yml", "-d", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_has_every_page_and_fetches_nothing_from_a_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {page.stem for page in pages}
    for page in pages:
        fetched = r"<(?:script|img|source|iframe)\b[^>]*\bsrc=\"?(?:https?:)?//|<link\b[^>]*\bhref=\"?(?:https?:)?//"
        assert not re.search(fetched, page.read_text()), page.name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import )[\"']?(?:https?:)?//", style.read_text()), style.name


@pytest.mark.skipif(not find_browser(), reason="no Chromium to look at the site with")
def test_the_site_is_searched_from_files(site: Path, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.screen(1300, 900)
        page.open((site / "docs" / "start.html").as_uri())
        page.wait("!!document.querySelector('iframe')")
        page.evaluate("document.querySelector('.md-search__input').focus()")
        page.type("settle")
        page.wait("!!document.querySelector('.md-search-result__link[href*=\"docs/watch.html\"]')")
        assert not [url for url in page.requests if not url.startswith(("file:", "data:", "about:", "blob:"))]


def test_forms_for_issues_are_what_github_takes() -> None:
    yaml = pytest.importorskip("yaml", reason="the extra docs is not installed")
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    forms = [path for path in folder.glob("*.yml") if path.name != "config.yml"]
    assert len(forms) >= 2 and yaml.safe_load((folder / "config.yml").read_text())["blank_issues_enabled"] is False
    for path in forms:
        form = yaml.safe_load(path.read_text())
        assert {"name", "description", "body"} <= set(form) <= {"name", "description", "title", "labels", "body"}
        fields = [part for part in form["body"] if part["type"] != "markdown"]
        assert all(part["type"] in ("input", "textarea", "dropdown", "checkboxes") for part in fields)
        assert all(part["attributes"]["label"] for part in fields)
        assert len({part["id"] for part in fields}) == len(fields)


def test_the_picture_of_the_house_is_as_its_imports_are() -> None:
    assert subprocess.run([sys.executable, ROOT / "scripts" / "draw_house.py", "--check"]).returncode == 0, (
        "draw it again: python scripts/draw_house.py"
    )
