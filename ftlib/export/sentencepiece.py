"""SentencePiece's BPE, as transformers keeps it (BPE with byte fallback), in llama.cpp's terms.

transformers has merges in the order of their rank; llama.cpp has a score for each token and joins,
again and again, the two neighbours whose joint text is the token of the highest score, the left
pair of equals (Kudo and Richardson 2018, arXiv 1808.06226). Both give the same tokens if every way
to join two tokens into a third is among the merges, and the merges are sorted by what they make.
That is checked, since a tokenizer of another origin need not have it.
"""

from __future__ import annotations

import re

from gguf import TokenType

from ftlib.export.errors import ExportError

SPACE = "▁"  # stands for a space
BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_FIX = "run llama.cpp's own converter (converter=…)"


def is_sentencepiece(content: dict) -> bool:
    """Whether a tokenizer's JSON is BPE over characters with bytes to fall back to."""
    model = content["model"]
    return model["type"] == "BPE" and bool(model.get("byte_fallback"))


def read_sentencepiece(
    content: dict, tokens: list[str], types: list[int]
) -> tuple[list[float], list[int], bool]:
    """(score of each token, type of each token, whether a text gets a space before it).

    ExportError where llama.cpp would give other tokens: merges that are missing or in another
    order, another normalizer or pre-tokenizer.
    """
    space_prefix = _space_prefix(content)
    unknown = content["model"].get("unk_token")
    typed = []
    for text, kind in zip(tokens, types, strict=True):
        if BYTE.fullmatch(text):
            kind = TokenType.BYTE
        elif text == unknown:
            kind = TokenType.UNKNOWN
        typed.append(kind)
    normal = {text for text, kind in zip(tokens, typed, strict=True) if kind == TokenType.NORMAL}
    ranks = _ranks(content["model"]["merges"])
    _check_all_ways(ranks, normal, set(content["model"]["vocab"]))
    scores = [-float(ranks[text][0]) if text in ranks else 0.0 for text in tokens]
    return scores, typed, space_prefix


def _ranks(merges: list) -> dict[str, list[int]]:
    """{token: ranks of the merges that make it}; ExportError where those of two tokens interleave,
    so that no score a token could stand for them.
    """
    ranks: dict[str, list[int]] = {}
    before = ""
    for rank, pair in enumerate(merges):
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        made = left + right
        if made in ranks and made != before:
            raise ExportError(
                f"merge {rank} makes {made!r} again after merges of other tokens: llama.cpp has "
                f"one score per token; {_FIX}"
            )
        ranks.setdefault(made, []).append(rank)
        before = made
    return ranks


def _check_all_ways(ranks: dict[str, list[int]], normal: set[str], vocabulary: set[str]) -> None:
    """ExportError for a token that can be joined of two others in a way that no merge has."""
    for text in normal:
        ways = 0
        for cut in range(1, len(text)):
            ways += text[:cut] in vocabulary and text[cut:] in vocabulary
        found = len(ranks.get(text, []))
        if ways != found:
            raise ExportError(
                f"token {text!r} can be joined of two others in {ways} ways, and {found} of them "
                f"are merges: llama.cpp would join all of them; {_FIX}"
            )


def _space_prefix(content: dict) -> bool:
    """Whether every stretch of text between markers gets a space before it (Llama 2), or none does
    (Gemma); ExportError for anything else that transformers does to a text.
    """
    steps = _steps(content.get("normalizer"), "normalizers")
    cuts = _steps(content.get("pre_tokenizer"), "pretokenizers")
    prefix = False
    if steps and steps[0] == {"type": "Prepend", "prepend": SPACE}:
        prefix = True
        steps = steps[1:]
    if steps == [{"type": "Replace", "pattern": {"String": " "}, "content": SPACE}]:
        if not cuts or cuts == [_gemmas_cut()]:
            return prefix
    elif not steps and len(cuts) == 1 and cuts[0].get("type") == "Metaspace":
        scheme = cuts[0].get("prepend_scheme")
        whole = cuts[0].get("split") is False and cuts[0].get("replacement") == SPACE
        if whole and scheme in ("always", "never"):
            return scheme == "always"
    raise ExportError(
        f"normalizer {_shown(content.get('normalizer'))} and pre-tokenizer "
        f"{_shown(content.get('pre_tokenizer'))} are not SentencePiece's as llama.cpp has it: "
        f"{_FIX}"
    )


def _steps(part: dict | None, name: str) -> list[dict]:
    if not part:
        return []
    return part.get(name, [part])


def _gemmas_cut() -> dict:
    """After the normalizer no space is left, so that this cuts nothing."""
    return {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithPrevious",
        "invert": False,
    }


def _shown(part: dict | None) -> str:
    return str(part)[:200] if part else "none"
