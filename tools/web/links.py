"""Whether what a built site refers to is there: pages, places in them, pictures and scripts."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

REFERS = {"a": "href", "link": "href", "img": "src", "script": "src", "form": "action"}
OUTSIDE = {"http", "https", "mailto", "data"}
# Sphinx escapes what is between tags, and > in attributes: patterns do, and are ten times as fast.
TAG = re.compile(rf"<({'|'.join(REFERS)})\s([^>]*)>")
ATTRIBUTE = re.compile(r"""([\w-]+)=(?:"([^"]*)"|'([^']*)')""")
PLACE = re.compile(r"""<[^>]*\s(?:id|name)=["']([^"']+)["']""")
LOADED = {"link", "img", "script"}  # what a browser fetches to show a page


class _Page:
    """What a page refers to, as (tag, address), and the places that others may refer to."""

    def __init__(self, text: str):
        self.places = {html.unescape(place) for place in PLACE.findall(text)}
        self.refers: list[tuple[str, str]] = []
        self.pictures_without_text = 0
        for tag, inside in TAG.findall(text):
            given = {name: html.unescape(a or b) for name, a, b in ATTRIBUTE.findall(inside)}
            if given.get(REFERS[tag]):
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
