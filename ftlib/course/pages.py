"""Pages that stand alone: HTML without a script, an outside file or a link to one, in the reader's
light or dark. Whatever comes from a submission is escaped, and a browser is told to load nothing.
"""

from __future__ import annotations

import unicodedata
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --page: #fff; --soft: #f3f3f1; --line: #cfcfca;
  --blue: #0072b2; --orange: #b45f06; --muted: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --page: #141414; --soft: #222;
  --line: #4a4a4a; --blue: #56b4e9; --orange: #f0a350; --muted: #b0b0b0; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 58rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; }
p { margin: .4rem 0; } code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.points { float: right; font-weight: 600; } .muted { color: var(--muted); }
.card { background: var(--soft); border-left: 5px solid var(--orange); border-radius: 4px;
  padding: .7rem 1rem; margin: .7rem 0; overflow-wrap: anywhere; }
.card.open { border-left-style: dotted; }
table { border-collapse: collapse; width: 100%; } caption { text-align: left; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem .35rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
th, td code { white-space: nowrap; } td { min-width: 0; } td p { margin: 0; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
svg.hidden { position: absolute; } svg { max-width: 100%; height: auto; }
@media print { .card { break-inside: avoid; } }
"""


def shown_text(text: str) -> str:
    """Text of others for a page: escaped, and what a browser would not show, or would turn the
    direction of the line with, as its code.
    """
    plain = []
    for sign in text:
        hidden = unicodedata.category(sign) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        plain.append(f"\\u{ord(sign):04x}" if hidden and sign != "\n" else sign)
    return escape("".join(plain))


def with_code(text: str) -> str:
    """One of the course's own texts, such as a hint, as HTML: what is between backticks is code."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:  # one backtick has no other
        return escape(text)
    shown = []
    for i, part in enumerate(parts):
        shown.append(f"<code>{part}</code>" if i % 2 else part)
    return "".join(shown)


def page(title: str, body: str) -> str:
    """A whole page; `title` is text, `body` is HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{shown_text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )
