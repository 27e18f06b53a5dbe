"""A real Ollama on this course's exports, tried once by its authors and written down: a citation,
not a run of this notebook.

On 28 November 2026, on a CPU, with the embedded model and its adapter: versions 0.24.0 (its own
runner, with llama.cpp inside) and 0.32.15 (a server in front of llama.cpp's own). What is marked
"read" was read in the sources of a later version and not run.
"""

from __future__ import annotations

WHEN = "28 November 2026"
ROWS = [
    {
        "asked": "prompt tokens as apply_chat_template's (prompt_eval_count)",
        "0.24.0": "24 of 24",
        "0.32.15": "24 of 24",
    },
    {
        "asked": "greedy answers of the merged f16 file as transformers'",
        "0.24.0": "23 of 24; 24 with repeat_penalty 1",
        "0.32.15": "24 of 24",
    },
    {
        "asked": "the same file without TEMPLATE in the Modelfile, right answers",
        "0.24.0": "0 of 24",
        "0.32.15": "24 of 24",
    },
    {
        "asked": "adapter GGUF over the f16 base, answers as the merged file's",
        "0.24.0": "24 of 24",
        "0.32.15": "24 of 24; since 0.34.1 refused (read)",
    },
    {
        "asked": "a prompt longer than num_ctx",
        "0.24.0": "cut in silence, status 200",
        "0.32.15": "cut in silence, status 200",
    },
]
CAPTION = (
    f"Ollama itself, tried by the authors on {WHEN}, on a CPU, embedded model: cited, not run here"
)
