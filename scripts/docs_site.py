"""Hooks of the documentation's site: pages link to files outside ``docs/`` as a clone has them.

A Markdown file there becomes a page under ``more/``, and any other a file beside it. A link to
what is not there is one that MkDocs warns of.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
MORE = "more"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files, config):
    """Add what the pages lead to, and what that leads to."""
    waiting = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")]
    seen = set(waiting)
    while waiting:
        page = waiting.pop()
        for target in _targets(page):
            if target not in seen and (ROOT / target).is_file():
                seen.add(target)
                files.append(File.generated(config, _place(target), abs_src_path=ROOT / target))
                if target.endswith(".md"):
                    waiting.append(target)
    return files


def on_page_markdown(markdown, page, config, files):
    """Point links to where the files are on the site."""
    here = page.file.src_uri
    path = here.removeprefix(f"{MORE}/") if here.startswith(f"{MORE}/") else f"docs/{here}"

    def moved(found):
        target = _resolved(path, found[1])
        if target.startswith("docs/examples/") or not target.startswith("docs/"):
            place = _place(target) if (ROOT / target).is_file() else None
        else:
            place = target.removeprefix("docs/")
        if place is None:
            return found[0]
        return posixpath.relpath(place, posixpath.dirname(here)) + (found[2] or "")

    return LINK.sub(moved, markdown)


def _targets(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in LINK.finditer(text):
        target = _resolved(page, found[1])
        if target.startswith("docs/examples/") or not target.startswith(("docs/", "..")):
            yield target


def _resolved(page, link):
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _place(target):
    return f"{MORE}/{target}"
