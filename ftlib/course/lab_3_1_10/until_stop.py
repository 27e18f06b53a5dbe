"""Lab 3.1.10, export and Ollama, exercise 7: stops in a stream."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def until_stop(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """(the text before the stop that begins first, whether there was one) of a stream of pieces."""
    text = ""
    for piece in pieces:
        text += piece
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
    return text, False


def _stop_cases(g):
    yield ["Pan", "holm", "<|end|>", "<|user|>", "More?"], ["<|end|>", "<|eos|>"]
    yield ["Panholm", "<|", "end", "|>", " and on"], ["<|end|>"]
    yield ["one<|eos|>two<|end|>", "three"], ["<|end|>", "<|eos|>"]
    yield ["and", "<|eos|>", "on"], ["<|end|>", "<|eos|>"]
    yield [" no", " stop", " here "], ["<|end|>"]
    yield ["a", "###", "b"], []
    # One stop twice in one piece, and the first of the list first: what looks from the end is seen.
    yield ["one<|end|>two<|end|>three"], ["<|end|>"]
    yield ["one<|end|>two<|eos|>three"], ["<|end|>", "<|eos|>"]


def _stopped(found, keep=lambda text, at, stop: text[:at]):
    def until(pieces, stops):
        text = ""
        for piece in pieces:
            hit = found(text, piece, stops)
            text += piece
            if hit:
                return keep(text, text.find(hit), hit), True
        return text, False

    return until


def _first(text, stops):
    """The stop that begins first in the text; None without one."""
    return min((stop for stop in stops if stop in text), key=text.find, default=None)


STOP = Exercise(
    name="until_stop",
    title="Stopping a stream",
    minutes=12,
    difficulty=2,
    reference=until_stop,
    cases=_stop_cases,
    hints=(
        "A stop may come in parts: `<|`, `end`, `|>`. So look into all the text so far, not into "
        "the last piece.",
        "`text.find(stop)` is where it begins, or -1.",
        "If several stops are there, the one that begins first counts. The stop itself is not "
        "part of the answer.",
        "found = [at for stop in stops if (at := text.find(stop)) >= 0]; if found: return "
        "text[:min(found)], True",
    ),
    wrong=(
        Wrong(
            "piece by piece",
            _stopped(lambda text, piece, stops: _first(piece, stops)),
            "You look at one piece at a time: a stop that comes in parts goes by unseen, and the "
            "answer runs on.",
        ),
        Wrong(
            "stop kept",
            _stopped(
                lambda text, piece, stops: _first(text + piece, stops),
                lambda text, at, stop: text[: at + len(stop)],
            ),
            "The stop is still at the end of your text: the user would see it.",
        ),
        Wrong(
            "first in the list",
            _stopped(
                lambda text, piece, stops: next((s for s in stops if s in text + piece), None)
            ),
            "You cut at the first stop of the list: the one that begins first in the text counts.",
        ),
        Wrong(
            "equal to the piece",
            _stopped(lambda text, piece, stops: piece if piece in stops else None),
            "You stop only where a piece *is* a stop: it may be part of a piece, or spread over "
            "several.",
        ),
        Wrong(
            "last piece lost",
            _stopped(
                lambda text, piece, stops: _first(text + piece, stops), lambda text, at, stop: ""
            ),
            "You drop the answer with the stop: the text before it is wanted.",
        ),
        Wrong(
            "one stop only",
            _stopped(lambda text, piece, stops: _first(text + piece, stops[:1])),
            "You look for the first stop of the list only: any of them ends the answer.",
        ),
        Wrong(
            "never said",
            lambda pieces, stops: (until_stop(pieces, stops)[0], False),
            "The text is right, but you never say that a stop was found: "
            "without that, an answer cut off by max_tokens looks the same.",
        ),
    ),
)
