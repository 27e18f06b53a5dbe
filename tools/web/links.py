"""Whether what a built site refers to is there: pages, places in them, pictures and scripts."""

from __future__ import annotations

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

REFERS = {"a": "href", "link": "href", "img": "src", "script": "src", "form": "action"}
OUTSIDE = {"http", "https", "mailto", "data"}
LOADED = {"link", "img", "script"}  # what a browser fetches to show a page


class _Page(HTMLParser):
    """Collects what a page refers to, and the places that others may refer to."""

    def __init__(self, text: str):
        super().__init__()
        self.refers: list[tuple[str, str]] = []  # (tag, address)
        self.places: set[str] = set()
        self.pictures_without_text = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        for key in ("id", "name"):
            if given.get(key):
                self.places.add(given[key])
        if tag in REFERS and given.get(REFERS[tag]):
            self.refers.append((tag, given[REFERS[tag]]))
        if tag == "img" and not given.get("alt"):
            self.pictures_without_text += 1


@cache
def _read(path: Path) -> _Page:
    return _Page(path.read_text(encoding="utf-8"))


def broken_links(folder: Path) -> list[str]:
    """What the pages below `folder` refer to and that is not there, or that a browser would fetch
    from the network to show the page; and pictures without a text. A line each, [] if all is well.
    """
    _read.cache_clear()
    folder = folder.resolve()
    found = []
    for path in sorted(folder.rglob("*.html")):
        page = _read(path)
        name = path.relative_to(folder)
        for tag, address in dict.fromkeys(page.refers):
            fault = _fault(path, folder, tag, address)
            if fault:
                found.append(f"{name}: {address}: {fault}")
        if page.pictures_without_text:
            found.append(f"{name}: {page.pictures_without_text} pictures without a text")
    return found


def _fault(path: Path, folder: Path, tag: str, address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme in OUTSIDE or parts.netloc:
        fetched = tag in LOADED and parts.scheme != "data"
        return "is fetched from the network" if fetched else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir():
        target = target / "index.html"
    if not target.is_relative_to(folder) or not target.is_file():
        return "is not there"
    place = unquote(parts.fragment)
    if place and target.suffix == ".html" and place not in _read(target).places:
        return "no such place in that page"
    return ""
