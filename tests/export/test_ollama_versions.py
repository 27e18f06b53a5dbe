"""What each generation of Ollama can do."""

import pytest

from ftlib.export.ollama_versions import ollama_abilities


@pytest.mark.parametrize(
    "version, adapters, jinja, penalty",
    [
        ("0.24.0", True, False, 1.1),
        ("0.29.9", True, False, 1.1),
        ("0.30.0", True, True, 1.1),
        ("0.32.9", True, True, 1.1),
        ("0.32.10", True, True, 1.0),
        ("v0.34.0", True, True, 1.0),
        ("0.34.1-rc0", False, True, 1.0),
        ("0.40", False, True, 1.0),
        ("1.0.0", False, True, 1.0),
        ("0.0.0", False, True, 1.0),  # compiled without a number: the newest
        ("main-abc", False, True, 1.0),
    ],
)
def test_by_version(version, adapters, jinja, penalty):
    """0.34.1 dropped adapters and quantising (September 2026), 0.32.10 the default penalty (August
    2026), 0.30 began to serve a GGUF's own Jinja.
    """
    found = ollama_abilities(version)
    assert found.takes_adapters is adapters and found.quantises is adapters
    assert found.serves_jinja is jinja and found.repeat_penalty == penalty
