"""The reading list with its times and experience points, defined only here.

STUDY_GUIDE.md holds `reading_table()`, and a test keeps the two equal.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """One thing to read. `key` is the argument of `ftlib progress --read`; `by` and `title` are
    shown, `hours` is an estimate.
    """

    key: str
    by: str
    title: str
    url: str
    hours: float
    level: str
    xp: int = 0
    note: str = ""


READINGS = (  # in the order in which they help
    Reading(
        "overview",
        "Philipp Schmid,",
        "How to fine-tune open LLMs in 2025",
        "https://www.philschmid.de/fine-tune-llms-in-2025",
        1,
        "start here",
    ),
    Reading(
        "lora", "Hu et al. 2021,", "LoRA", "https://arxiv.org/abs/2106.09685", 1.5, "required", 50
    ),
    Reading(
        "unsloth",
        "Unsloth,",
        "notebooks",
        "https://github.com/unslothai/notebooks",
        3,
        "required",
        50,
        ", hands-on",
    ),
    Reading(
        "qlora",
        "Dettmers et al. 2023,",
        "QLoRA",
        "https://arxiv.org/abs/2305.14314",
        2,
        "required",
        75,
    ),
    Reading(
        "dpo", "Rafailov et al. 2023,", "DPO", "https://arxiv.org/abs/2305.18290", 2, "required", 75
    ),
    Reading(
        "trl",
        "Hugging Face,",
        "TRL's documentation",
        "https://huggingface.co/docs/trl",
        2,
        "required",
        50,
        ", hands-on",
    ),
    Reading(
        "when",
        "Meta,",
        "When to fine-tune",
        "https://ai.meta.com/blog/when-to-fine-tune-llms-vs-other-techniques/",
        1,
        "useful",
    ),
    Reading(
        "fsdp-qlora",
        "Answer.AI 2024,",
        "FSDP and QLoRA",
        "https://www.answer.ai/posts/2024-03-06-fsdp-qlora.html",
        1,
        "advanced",
        50,
    ),
    Reading(
        "reft", "Wu et al. 2024,", "ReFT", "https://arxiv.org/abs/2404.03592", 2, "advanced", 50
    ),
    Reading(
        "lora-full",
        "Biderman et al. 2024,",
        "LoRA learns less and forgets less",
        "https://arxiv.org/abs/2405.09673",
        2,
        "advanced",
        50,
    ),
    Reading(
        "dora", "Liu et al. 2024,", "DoRA", "https://arxiv.org/abs/2402.09353", 1, "with lab 3.1.2"
    ),
    Reading(
        "neftune",
        "Jain et al. 2023,",
        "NEFTune",
        "https://arxiv.org/abs/2310.05914",
        1,
        "with lab 3.1.3",
    ),
    Reading(
        "lima", "Zhou et al. 2023,", "LIMA", "https://arxiv.org/abs/2305.11206", 1, "with lab 3.1.6"
    ),
    Reading(
        "simpo",
        "Meng et al. 2024,",
        "SimPO",
        "https://arxiv.org/abs/2405.14734",
        1,
        "with lab 3.1.8",
    ),
    Reading(
        "orpo", "Hong et al. 2024,", "ORPO", "https://arxiv.org/abs/2403.07691", 1, "with lab 3.1.8"
    ),
    Reading(
        "kto",
        "Ethayarajh et al. 2024,",
        "KTO",
        "https://arxiv.org/abs/2402.01306",
        1,
        "with lab 3.1.9",
    ),
)


def find_reading(key: str) -> Reading:
    """The reading with that key; ValueError lists the keys that exist."""
    for reading in READINGS:
        if reading.key == key:
            return reading
    raise ValueError(
        f"reading {key!r} is not on the list: use {', '.join(r.key for r in READINGS)}"
    )


def reading_table() -> str:
    """The list as the Markdown table of STUDY_GUIDE.md."""
    lines = ["| key | what | hours | level | XP |", "|---|---|---|---|---|"]
    lines += [
        f"| `{r.key}` | {r.by} [{r.title}]({r.url}){r.note} | {r.hours:g} | {r.level} | "
        f"{f'+{r.xp}' if r.xp else '–'} |"
        for r in READINGS
    ]
    return "\n".join(lines)
