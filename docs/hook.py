"""The site shows the repository's own files, each in the place that it has there, so that all links work."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
SHOWN = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "NOTICE", ".github/SECURITY.md"),
    *("docs/*.md", "docs/*.jpg", "docs/*.png", "docs/*.svg", "models/*.jpg", "train/README.md", "scripts/*/README.md"),
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that lie outside of the site's own folder."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Take the changelog's links to commits away: they lead to the repository's host, which a copy may not have."""
    without = re.sub(r"^\[.+\]: \.\./\.\./.*\n", "", markdown, flags=re.MULTILINE)
    return markdown if without == markdown else re.sub(r"^## \[(.+?)\]", r"## \1", without, flags=re.MULTILINE)
