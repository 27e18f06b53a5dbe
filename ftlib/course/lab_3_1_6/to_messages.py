"""Lab 3.1.6, data, exercise 1: a converter."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def to_messages(row: dict) -> list[dict]:
    """The messages of a raw row in Alpaca's form (instruction, input, output), ShareGPT's
    (conversations), or messages themselves.
    """
    if "messages" in row:
        return row["messages"]
    if "conversations" in row:
        roles = {"system": "system", "human": "user", "gpt": "assistant"}
        return [
            {"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]
        ]
    question = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]


def _raw_cases(g):
    talk = [
        ("system", "Be brief."),
        ("human", "Hi.\nYou?"),
        ("gpt", "Good."),
        ("human", "And now?"),
        ("gpt", "Now bye."),
    ]
    yield ({"instruction": "Translate.", "input": "two lamps", "output": "deux lampes"},)
    yield ({"instruction": "Say hello.", "input": "", "output": "Hello.\n"},)
    yield ({"conversations": [{"from": who, "value": said} for who, said in talk]},)
    yield ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},)
    yield ({"instruction": "No input key.", "output": "Right."},)


def _converter(
    join=lambda a, b: a + ("\n\n" + b if b else ""),
    role={"system": "system", "human": "user", "gpt": "assistant"}.get,
    turns=lambda t: t,
    text=lambda t: t,
):
    def convert(row):
        if "messages" in row:
            return row["messages"]
        if "conversations" in row:
            return [
                {"role": role(t["from"]), "content": text(t["value"])}
                for t in turns(row["conversations"])
            ]
        return [
            {"role": "user", "content": text(join(row["instruction"], row.get("input", "")))},
            {"role": "assistant", "content": text(row["output"])},
        ]

    return convert


CONVERT = Exercise(
    name="to_messages",
    title="Three formats, one row",
    minutes=10,
    difficulty=1,
    reference=to_messages,
    cases=_raw_cases,
    hints=(
        "Which format it is, the keys tell: `messages`, `conversations`, or `instruction`.",
        "ShareGPT's `human` and `gpt` are `user` and `assistant`; `system` keeps its name. Keep "
        "all turns.",
        "Alpaca's `input` may be missing or empty. "
        'If it is there, it follows the instruction after a blank line, `"\\n\\n"`.',
        'question = row["instruction"] + ("\\n\\n" + row["input"] if row.get("input") else "")',
    ),
    wrong=(
        Wrong(
            "input dropped",
            _converter(join=lambda a, b: a),
            "Alpaca's `input` is gone: the model would learn to answer about a text that it was "
            "not shown.",
        ),
        Wrong(
            "blank line always",
            _converter(join=lambda a, b: a + "\n\n" + b),
            "An empty `input` leaves two line breaks after the question: "
            "prompts would end in white space in training and not in use.",
        ),
        Wrong(
            "joined by a space",
            _converter(join=lambda a, b: a + (" " + b if b else "")),
            "Instruction and input run into one line: a blank line keeps them apart, and allows "
            "the way back.",
        ),
        Wrong(
            "roles kept",
            _converter(role=lambda name: name),
            "ShareGPT's names are no roles: `human` is `user` and `gpt` is `assistant`. "
            "A chat template would refuse them, or drop the turn.",
        ),
        Wrong(
            "first exchange only",
            _converter(turns=lambda t: t[:3]),
            "A conversation lost its later turns: convert all of them.",
        ),
        Wrong(
            "system dropped",
            _converter(turns=lambda t: [x for x in t if x["from"] != "system"]),
            "The system turn is gone: the answer was given under it.",
        ),
        Wrong(
            "stripped",
            _converter(text=str.strip),
            "A converter that also trims text cannot be undone, and eats the end of code. "
            "Convert here, clean in a rule of its own.",
        ),
    ),
)
