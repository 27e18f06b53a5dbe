"""What an Ollama of a version can do. Read in Ollama's sources and release notes, and tried where
an entry says so; an unnumbered build (0.0.0, as one compiles it) counts as the newest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

JINJA_SINCE = (0, 30, 0)  # serves a GGUF's own chat template where the Modelfile has none
NO_ADAPTERS_SINCE = (0, 34, 1)  # no ADAPTER any more
NEWEST = (10**6,)
ADAPTERS_ARE_GONE = (
    "Ollama 0.34.1 and newer takes no adapter beside a base: export the run merged (leave adapter "
    "out), or where the base is too large to be merged in memory, into its GGUF: `ftlib export RUN "
    "--into BASE.gguf --name NAME`"
)


@dataclass(frozen=True)
class OllamaAbilities:
    """What one version can do.

    takes_adapters: an adapter GGUF beside a base. serves_jinja: the GGUF's own chat template where
    the Modelfile has no TEMPLATE.
    """

    version: str
    takes_adapters: bool
    serves_jinja: bool


def ollama_abilities(version: str) -> OllamaAbilities:
    """What the Ollama can do that calls itself `version`, such as "0.32.15" or "0.34.1-rc2". An
    unnumbered build, and a text that is no version, counts as the newest.
    """
    number = _number(version)
    return OllamaAbilities(
        version,
        takes_adapters=number < NO_ADAPTERS_SINCE,
        serves_jinja=number >= JINJA_SINCE,
    )


def _number(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version.strip())
    if found is None:
        return NEWEST
    number = tuple(int(part or 0) for part in found.groups())
    return NEWEST if not any(number) else number
