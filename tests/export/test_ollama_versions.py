"""What each generation of Ollama can do."""

import pytest

from ftlib.export.ollama_versions import ollama_abilities


@pytest.mark.parametrize(
    "version, adapters, jinja",
    [
        ("0.24.0", True, False),
        ("0.29.9", True, False),
        ("0.30.0", True, True),
        ("v0.34.0", True, True),
        ("0.34.1-rc0", False, True),
        ("0.40", False, True),
        ("1.0.0", False, True),
        ("0.0.0", False, True),  # compiled without a number: the newest
        ("main-abc", False, True),
    ],
)
def test_by_version(version, adapters, jinja):
    """0.34.1 dropped adapters (September 2026), 0.30 began to serve a GGUF's own Jinja."""
    found = ollama_abilities(version)
    assert found.takes_adapters is adapters and found.serves_jinja is jinja
