"""The table of SCALES.md, between its marks, from the records of tiny and pocket.

python -m tools.scales
"""

from __future__ import annotations

import sys
from pathlib import Path

from ftlib.course.catalogue import MODULES
from ftlib.course.records.scales import scales_table

FILE = Path(__file__).resolve().parent.parent / "SCALES.md"
BEGIN = "<!-- table: `make scales` -->\n"
END = "<!-- end of table -->\n"


def with_table(text: str) -> str:
    """The text with today's table between its two marks. ValueError where one is missing."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"{FILE.name} lacks the marks {BEGIN.strip()} and {END.strip()}")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{scales_table(list(MODULES))}\n\n{END}{after}"


def main() -> int:
    FILE.write_text(with_table(FILE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
