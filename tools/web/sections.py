"""The sections of a page's Markdown, and how links reach them."""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1`*\s*$", re.M | re.S)
HEADING = re.compile(r"^(#{1,4}) +(.+?)\s*$", re.M)


@dataclass(frozen=True)
class Section:
    """A heading with the text below it, up to the next heading of any level."""

    page: str  # path of its source below the site's, such as labs/lab-3.1.1-lora-theory.ipynb
    title: str
    slug: str
    text: str

    @property
    def name(self) -> str:
        """The title without an exercise's minutes and difficulty."""
        return re.sub(r" · \d+ min.*$", "", self.title)

    @property
    def link(self) -> str:
        """From the site's root."""
        return f"/{self.page}#{self.slug}"


def slug(title: str) -> str:
    """A heading's anchor, as GitHub makes it (MyST calls this: `myst_heading_slug_func`)."""
    kept = re.sub(r"[^\w\- ]", "", title.strip().lower())
    return kept.replace(" ", "-")


def plain(markdown: str) -> str:
    """A heading's text without marks; formulas are left out, as MyST does it."""
    text = re.sub(r"\$[^$]*\$", "", markdown)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"[*`]", "", text)


def sections_of(page: str, markdown: str) -> list[Section]:
    """The sections in order; two of one title have different slugs."""
    blank = FENCE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), markdown)
    headings = list(HEADING.finditer(blank))
    ends = [heading.start() for heading in headings[1:]] + [len(markdown)]
    used: set[str] = set()
    found = []
    for heading, end in zip(headings, ends, strict=True):
        title = heading[2]
        anchor = _unused(slug(plain(title)), used)
        text = markdown[heading.end() : end]
        found.append(Section(page, re.sub(r"[*`]", "", title), anchor, text))
    return found


def _unused(wanted: str, used: set[str]) -> str:
    number = 1
    anchor = wanted
    while anchor in used:
        anchor = f"{wanted}-{number}"
        number += 1
    used.add(anchor)
    return anchor
