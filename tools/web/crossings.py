"""Pages that lead from a word to a place: glossary, papers, reading list."""

from __future__ import annotations

import re
import tomllib
from collections import Counter, defaultdict
from pathlib import Path

from ftlib.course.catalogue import MODULES, lab_number
from ftlib.course.readings import READINGS, Reading
from tools.web.reference import ARXIV, public_entries
from tools.web.sections import Section

ROOT = Path(__file__).resolve().parents[2]
TERMS = ROOT / "docs" / "glossary.toml"
PAPERS = ROOT / "tools" / "papers.toml"
ARXIV_LINK = re.compile(r"\[([^]]+)\]\(https://arxiv\.org/abs/(\d{4}\.\d{4,5})[^)]*\)")
YEAR_LINK = re.compile(  # Yoshida ([2023](…)): the link's text is the year alone
    r"([A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)?)[’']?s?,? \(?\[(\d{4})\]"
    r"\(https://arxiv\.org/abs/(\d{4}\.\d{4,5})[^)]*\)"
)
ANY_ARXIV = re.compile(r"arxiv\.org/abs/(\d{4}\.\d{4,5})|arXiv[\s:]+(\d{4}\.\d{4,5})")


# --- the glossary ---------------------------------------------------------------------------------
def glossary_page(sections: list[Section]) -> str:
    """Every term with what it means, the section where it first appears, and the labs that use it
    after that. `sections`: of the labs, in the course's order; terms of labs that are not among
    them are left out. ValueError for a term that its lab does not have.
    """
    here = {lab_number(Path(section.page)) for section in sections}
    terms = tomllib.loads(TERMS.read_text(encoding="utf-8"))
    unknown = {entry["lab"] for entry in terms.values()} - set(MODULES)
    if unknown:
        raise ValueError(f"{TERMS.name}: there is no lab {', '.join(sorted(unknown))}")
    lines = ["# Glossary", "", "Each term leads to the place where a lab introduces it.", ""]
    for name in sorted((n for n in terms if terms[n]["lab"] in here), key=str.lower):
        lines += _term(name, terms[name], sections)
    return "\n".join(lines)


def _term(name: str, entry: dict, sections: list[Section]) -> list[str]:
    term = rf"\b{re.escape(name)}"
    first = introduced(name, entry.get("pattern", term), entry["lab"], sections)
    number = lab_number(Path(first.page))
    used = re.compile(term, re.I)
    labs = [lab_number(Path(s.page)) for s in sections if used.search(s.title + s.text)]
    others = [f"[{n}]({_lab_link(n, sections)})" for n in dict.fromkeys(labs) if n != number]
    more = f" · also in {', '.join(others)}" if others else ""
    return [
        f"({_target(name)})=",
        f"**{name}**",
        f": {entry['says']}",
        "",
        f"  *First in lab {number}:* [{first.name}]({first.link}){more}",
        "",
    ]


def _target(name: str) -> str:
    return "term-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _lab_link(number: str, sections: list[Section]) -> str:
    page = next(s.page for s in sections if lab_number(Path(s.page)) == number)
    return f"/{page}"


def introduced(name: str, pattern: str, lab: str, sections: list[Section]) -> Section:
    """The section of `lab` that introduces a term: the first with it in its title, else in its
    text. The lab's opening, which names everything, counts last.
    """
    found = re.compile(pattern, re.I)
    own = [s for s in sections if lab_number(Path(s.page)) == lab]
    inner = own[1:]
    for section in inner:
        if found.search(section.title):
            return section
    for section in [*inner, *own[:1]]:
        if found.search(section.text):
            return section
    raise ValueError(
        f"{TERMS.name}: lab {lab} does not have {name!r} (looked for {pattern!r}); "
        "correct lab or pattern"
    )


# --- papers ---------------------------------------------------------------------------------------
def uses_of_papers(sections: list[Section]) -> dict[str, list[Section]]:
    """For each arXiv number the sections that cite it, in order."""
    uses: dict[str, list[Section]] = defaultdict(list)
    for section in sections:
        for a, b in ANY_ARXIV.findall(section.title + section.text):
            number = a or b
            if section not in uses[number]:
                uses[number].append(section)
    return uses


def names_of_papers(sections: list[Section]) -> dict[str, str]:
    """For each arXiv number its authors or name: of the reading list, of `tools/papers.toml`, else
    as the labs' links mostly call it.
    """
    called: dict[str, Counter] = defaultdict(Counter)
    for section in sections:
        for text, number in ARXIV_LINK.findall(section.text):
            if not re.match(r"arxiv|\d+$", text, re.I):
                called[number][re.sub(r"[*`]", "", text)] += 1
        for authors, year, number in YEAR_LINK.findall(section.text):
            called[number][f"{authors} {year}"] += 1
    names = {number: counts.most_common(1)[0][0] for number, counts in called.items()}
    for entry in tomllib.loads(PAPERS.read_text(encoding="utf-8")).values():
        if "arxiv" in entry:
            names[entry["arxiv"]] = entry["names"][0]
    for reading in READINGS:
        if "arxiv.org" in reading.url:
            number = reading.url.rsplit("/", 1)[1]
            names[number] = f"{reading.by.rstrip(',')}: {reading.title}"
    return names


def functions_of_papers() -> dict[str, list[str]]:
    """For each arXiv number the public names whose docstrings cite it."""
    found: dict[str, list[str]] = defaultdict(list)
    for entry in public_entries().values():
        for number in dict.fromkeys(ARXIV.findall(entry.doc)):
            found[number].append(entry.link)
    return found


def labs_with_papers(sections: list[Section]) -> dict[str, list[str]]:
    """For each public name the labs, as links, that go into the first paper of its docstring."""
    found: dict[str, list[str]] = {}
    uses = uses_of_papers([s for s in sections if s.title != "Further reading"])
    for entry in public_entries().values():
        links: dict[str, str] = {}
        for number in ARXIV.findall(entry.doc)[:1]:
            for section in uses.get(number, []):
                lab = lab_number(Path(section.page))
                links.setdefault(lab, f"[{lab}]({section.link})")
        found[entry.name] = list(links.values())
    return found


def papers_page(sections: list[Section]) -> str:
    """Every paper with an arXiv number, and where it is used."""
    uses = uses_of_papers(sections)
    names = names_of_papers(sections)
    functions = functions_of_papers()
    lines = [
        "# Papers, and where each is used",
        "",
        "Every paper with an arXiv number that a lab, a document or a docstring cites. "
        "The [reading list](/reading.md) says which to read, and when.",
        "",
    ]

    def by_name(number: str) -> tuple[str, str]:
        return names.get(number, "~").lower(), number

    for number in sorted({*uses, *functions}, key=by_name):
        title = names.get(number) or f"arXiv {number}"
        lines += [
            f"(paper-{number.replace('.', '-')})=",
            f"**{title}** [arXiv {number}](https://arxiv.org/abs/{number})",
            f": {_places(uses.get(number, []))}",
        ]
        if number in functions:
            lines += ["", f"  Functions: {', '.join(functions[number])}"]
        lines.append("")
    return "\n".join(lines)


def _places(sections: list[Section]) -> str:
    """Links to sections, a page's together."""
    if not sections:
        return "In the library:"
    pages: dict[str, list[Section]] = defaultdict(list)
    for section in sections:
        pages[section.page].append(section)
    parts = []
    for page, own in pages.items():
        number = lab_number(Path(page))
        where = f"lab {number}" if number else page.removesuffix(".md")
        inside = [s for s in own if s.title != "Further reading"] or own
        links = ", ".join(f"[{s.name}]({s.link})" for s in inside)
        parts.append(f"**{where}**: {links}")
    return ". ".join(parts)


# --- the reading list -----------------------------------------------------------------------------
def reading_page(sections: list[Section]) -> str:
    """The reading list with hours and experience points, and where each paper is used."""
    uses = uses_of_papers(sections)
    required = sum(reading.hours for reading in READINGS if reading.level == "required")
    points = sum(reading.xp for reading in READINGS)
    lines = [
        "# Reading list, and experience points",
        "",
        f"In the order in which it helps. The required readings take about {required:g} hours; "
        f"all together are worth {points} XP. Times and points are the course's own. "
        "`ftlib progress --read KEY` ticks a reading off; [the study guide](/STUDY_GUIDE.md) "
        "says how points add up.",
        "",
        "| key | what | hours | level | XP | used in |",
        "|---|---|---|---|---|---|",
    ]
    lines += [_reading(reading, uses) for reading in READINGS]
    return "\n".join([*lines, ""])


def _reading(reading: Reading, uses: dict[str, list[Section]]) -> str:
    cited = uses.get(reading.url.rsplit("/", 1)[1], []) if "arxiv.org" in reading.url else []
    labs: dict[str, str] = {}
    for section in cited:
        number = lab_number(Path(section.page))
        if number:
            labs.setdefault(number, f"[{number}]({section.link})")
    return (
        f"| `{reading.key}` | {reading.by} [{reading.title}]({reading.url}){reading.note} | "
        f"{reading.hours:g} | {reading.level} | {f'+{reading.xp}' if reading.xp else '–'} | "
        f"{', '.join(labs.values()) or '–'} |"
    )
