"""What the faults of lab 3.1.10 are to show, and how to read each outcome."""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, difference

CHANCE = "More answers are right with the fault than without: chance, or it is no fault."


def _cost(name: str, fault: str, above: str, none: str, expected: str = "above") -> Claim:
    """Right answers that a fault costs."""
    return Claim(
        name=name,
        text=f"right answers, as trained − {fault}",
        contrast=difference("right", "as trained", fault),
        expected=expected,
        unit="of the prompts",
        above=above,
        below=CHANCE,
        none=none,
    )


FAULT_CLAIMS = (
    _cost(
        "family",
        "another family's template",
        above=(
            "The file loads, answers fluently and is useless. No runtime checks a TEMPLATE against "
            "the model; one chat shows it, if somebody reads the answer."
        ),
        none="It is not shown that another family's turns cost this model answers.",
    ),
    _cost(
        "closed",
        "turn not closed",
        above=(
            "One forgotten marker, in a template that looks right. It costs part of the answers "
            "and not all, which is the worst kind: a short trial by hand may well pass."
        ),
        none="The forgotten end marker costs nothing that these prompts show.",
    ),
    _cost(
        "newline",
        "newline after each turn",
        above=(
            "A line break where training had none. White space is part of the format: compare "
            "character by character, as the check of exercise 7 does."
        ),
        none="A line break between the turns costs nothing that these prompts show.",
    ),
    _cost(
        "opened",
        "answer not opened",
        above="The model first has to say who speaks, and loses answers by it.",
        none=(
            "No cost: after a closed question this model has only ever seen the opening of the "
            "answer, so it writes that itself, one token more per reply. With more roles, or at a "
            "temperature, do not count on it."
        ),
    ),
    _cost(
        "twice",
        "start token twice",
        above="Two start tokens are a text that no model was trained on, and it shows.",
        none=(
            "No cost that these prompts show, in this model. Still, it was never trained on such a "
            "text: measure yours."
        ),
    ),
    _cost(
        "rows",
        "wrong rows",
        above=(
            "The file has the right size and gives the right tokens. Its answers show that it is "
            "broken; only a comparison of its tensors or logits with the model's shows *where*."
        ),
        none=(
            "No cost of the other order is shown: then check whether the order was changed at all."
        ),
    ),
    _cost(
        "penalty",
        "repeat penalty 1.1",
        above=(
            "A setting that no Modelfile mentions. Tokens of the prompt become less likely in the "
            "answer, and an answer that must copy from its prompt, numbers above all, goes wrong."
        ),
        none=(
            "No cost of the repeat penalty is shown on these prompts. It works on tokens that the "
            "prompt has: a task that copies more is hurt more."
        ),
    ),
    _cost(
        "four_bits",
        "Q4_K_M",
        above="For scale: four bits cost answers too.",
        none=(
            "For scale: the quantisation that everybody worries about costs nothing that these "
            "prompts show. Look at the template first."
        ),
        expected="none",
    ),
)
