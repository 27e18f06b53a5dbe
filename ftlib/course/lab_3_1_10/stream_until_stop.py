"""Lab 3.1.10, export and Ollama, exercise 8: stops in a stream."""

from __future__ import annotations

from collections.abc import Callable

from ftlib.course.exercise import Exercise, Wrong


def stream_until_stop(pieces: list[str], stops: list[str]) -> tuple[list[str], bool]:
    """(what may be shown after each piece, whether a stop came).

    A text for each piece that was read: all that cannot be the beginning of a stop, "" where there
    is nothing yet. At a stop the last text is what comes before it. If the stream ends without one,
    what is still held back comes as one text more.
    """
    shown = []
    held = ""
    for piece in pieces:
        held += piece
        found = [at for stop in stops if (at := held.find(stop)) >= 0]
        if found:
            shown.append(held[: min(found)])
            return shown, True
        safe = len(held) - _begun(held, stops)
        shown.append(held[:safe])
        held = held[safe:]
    shown.append(held)
    return shown, False


def _begun(text: str, stops: list[str]) -> int:
    """How many letters at the end of the text may be the beginning of a stop: the most."""
    for length in range(len(text), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0


def _stop_cases(g):
    yield ["Pan", "holm", "<|end|>", "<|user|>", "More?"], ["<|end|>", "<|eos|>"]
    yield ["Panholm", "<|", "end", "|>", " and on"], ["<|end|>"]
    yield ["one<|eos|>two<|end|>", "three"], ["<|end|>", "<|eos|>"]
    yield ["a <", "b and <|", "eos", "|>"], ["<|end|>", "<|eos|>"]
    yield ["5 <", " 7 and <|e"], ["<|end|>"]
    yield [" no", " stop", " here "], ["<|end|>"]
    yield ["a", "###", "b"], []
    # One stop twice in one piece, and the first of the list first: what looks from the end is seen.
    yield ["one<|end|>two<|end|>three"], ["<|end|>"]
    yield ["one<|end|>two<|eos|>three"], ["<|end|>", "<|eos|>"]
    # A letter that may begin a stop comes twice, and the longer beginning is the one that goes on.
    yield ["x<", "<|", "end|>y"], ["<|end|>"]
    yield ["\n", "\nUser", " says", "\n\nUser:", "no"], ["\n\nUser:"]
    yield ["done\n\n", "User:", "no"], ["\n\nUser:"]


def _first(text: str, stops: list[str]) -> str | None:
    """The stop that begins first in the text; None without one."""
    return min((stop for stop in stops if stop in text), key=text.find, default=None)


def _streamed(
    hold: Callable[[str, list[str]], int] = _begun,
    find: Callable[[str, str, list[str]], str | None] = lambda held, piece, stops: _first(
        held, stops
    ),
    keep: Callable[[str, int, str], str] = lambda held, at, stop: held[:at],
    rest: Callable[[list[str], str], list[str]] = lambda shown, held: [*shown, held],
    said: bool = True,
):
    """An answer with one step of its own: how much is held back, which stop is found, what is shown
    at a stop, and at the end.
    """

    def stream(pieces, stops):
        shown = []
        held = ""
        for piece in pieces:
            held += piece
            stop = find(held, piece, stops)
            if stop:
                shown.append(keep(held, held.find(stop), stop))
                return shown, said
            safe = len(held) - hold(held, stops)
            shown.append(held[:safe])
            held = held[safe:]
        return rest(shown, held), False

    return stream


def _longest_less_one(held: str, stops: list[str]) -> int:
    longest = max(map(len, stops), default=1)
    return min(len(held), longest - 1)


def _of_one_letter(held: str, stops: list[str]) -> int:
    return int(any(held.endswith(stop[0]) for stop in stops))


def _shortest_beginning(held: str, stops: list[str]) -> int:
    for length in range(1, len(held) + 1):
        if any(stop.startswith(held[-length:]) for stop in stops):
            return length
    return 0


def _whole_if_any(held: str, stops: list[str]) -> int:
    return len(held) if any(stop[0] in held for stop in stops) else 0


def _drops_what_was_held(pieces, stops):
    """Text that was held back and turned out to be none is lost."""
    shown = []
    held = ""
    for piece in pieces:
        text = held + piece
        stop = _first(text, stops)
        if stop:
            return [*shown, text[: text.find(stop)]], True
        begun = _begun(text, stops)
        shown.append(piece if not begun else text[: len(text) - begun])
        held = text[len(text) - begun :]
    return [*shown, held], False


STREAM = Exercise(
    name="stream_until_stop",
    title="Stopping a stream",
    minutes=18,
    difficulty=3,
    reference=stream_until_stop,
    cases=_stop_cases,
    hints=(
        "A stop may come in parts: `<|`, `end`, `|>`. What was shown cannot be taken back, so a "
        "`<|` at the end must wait for the next piece. Keep a text `held`, and add each piece.",
        "If a stop is in `held`: show what is before the one that begins first, and end. Else show "
        "all but the longest end of `held` with which some stop begins.",
        "The longest such end: go through the lengths from len(held) down to 1 and ask "
        "`any(stop.startswith(held[-length:]) for stop in stops)`.",
        "After the last piece no stop can come any more: what is held back is text, and comes as "
        "one more.",
    ),
    wrong=(
        Wrong(
            "nothing held back",
            _streamed(hold=lambda held, stops: 0),
            "Nothing is held back: half a stop is on the user's screen before the other half "
            "comes, and then it is not even recognised.",
        ),
        Wrong(
            "piece by piece",
            _streamed(find=lambda held, piece, stops: _first(piece, stops)),
            "You look for the stop in the last piece only: one that comes in parts goes by unseen, "
            "and the answer runs on.",
        ),
        Wrong(
            "stop kept",
            _streamed(keep=lambda held, at, stop: held[: at + len(stop)]),
            "The stop is still at the end of your text: the user would see it.",
        ),
        Wrong(
            "first in the list",
            _streamed(find=lambda held, piece, stops: next((s for s in stops if s in held), None)),
            "You cut at the first stop of the list: the one that begins first in the text counts.",
        ),
        Wrong(
            "one stop only",
            _streamed(find=lambda held, piece, stops: _first(held, stops[:1])),
            "You look for the first stop of the list only: any of them ends the answer.",
        ),
        Wrong(
            "text before the stop lost",
            _streamed(keep=lambda held, at, stop: ""),
            "At a stop you show nothing: the text before it in the same piece is wanted.",
        ),
        Wrong(
            "always as long as a stop",
            _streamed(hold=_longest_less_one),
            "You always hold back as many letters as a stop has, less one: safe, but the user "
            "waits for text that cannot be a stop. Hold back only what a stop begins with.",
        ),
        Wrong(
            "one letter",
            _streamed(hold=_of_one_letter),
            "You hold back one letter at most: after `<|` two are wanted.",
        ),
        Wrong(
            "shortest beginning",
            _streamed(hold=_shortest_beginning),
            "You hold back the shortest end that may begin a stop: take the longest, or part of a "
            "stop is shown.",
        ),
        Wrong(
            "everything held",
            _streamed(hold=_whole_if_any),
            "You hold back all the text as soon as a letter of a stop's beginning is in it: only "
            "an *end* of the text can still become a stop.",
        ),
        Wrong(
            "end lost",
            _streamed(rest=lambda shown, held: shown),
            "After the last piece you drop what was held back: no stop came, so it is text, and "
            "comes as one text more.",
        ),
        Wrong(
            "held text lost",
            _drops_what_was_held,
            "What was held back and turned out to be no stop is lost: show it with the next piece.",
        ),
        Wrong(
            "never said",
            _streamed(said=False),
            "The texts are right, but you never say that a stop was found: without that, an answer "
            "cut off by max_tokens looks the same.",
        ),
        Wrong(
            "one text",
            lambda pieces, stops: (
                "".join(stream_until_stop(pieces, stops)[0]),
                stream_until_stop(pieces, stops)[1],
            ),
            "You return one text: a list is wanted, what may be shown after each piece.",
        ),
        Wrong(
            "not cut at all",
            lambda pieces, stops: (list(pieces), False),
            "You pass the pieces on as they are: nothing stops.",
        ),
    ),
)
