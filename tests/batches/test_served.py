"""Templates that write a conversation otherwise than they prompt for its answers: each answer is
trained on as it is served.
"""

from __future__ import annotations

import pytest
from conftest import byte_tokenizer

from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_pairs
from ftlib.batches.served import continues_prompts, served_example
from ftlib.batches.template import IGNORE, encode, encode_examples, template_ids
from ftlib.core.errors import DataError, RewrittenTurnError

TALK = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "one"},
    {"role": "user", "content": "b"},
    {"role": "assistant", "content": "two"},
]
SYSTEM = [{"role": "system", "content": "S"}, *TALK]
TURN = "{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>' }}"
LOOP = "{% for m in messages %}" + TURN + "{% endfor %}"
OPEN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
# Kinds of rewriting, as published templates have them.
KINDS = {
    # Prompts with a thought that is over, and writes none into a conversation (Gemma 4, GLM).
    "thought in the prompt alone": LOOP + OPEN.replace("{% endif", "<think></think>{% endif"),
    # Writes a channel before each answer, for which it does not prompt (gpt-oss, Solar).
    "channel before the answer": LOOP.replace(
        "m.content", "('<|final|>' if m.role == 'assistant' else '') ~ m.content"
    )
    + OPEN,
    # Opens an answer whether it is asked to or not (Command R7B).
    "always open": LOOP.replace("m.content", "('=' if m.role == 'assistant' else '') ~ m.content")
    + "<|assistant|>",
    # Marks that stand around the header of the answer as well (Laguna).
    "marks around the header": "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% generation %}"
    + TURN
    + "{% endgeneration %}{% else %}"
    + TURN
    + "{% endif %}{% endfor %}"
    + OPEN,
}


def tokenizer_with(template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def stretches(examples: list[dict]) -> list[tuple[list[int], list[int]]]:
    """(ids before it, its labels) of each stretch that is learnt."""
    found = []
    for example in examples:
        labels = example["labels"]
        starts = [i for i, label in enumerate(labels) if label != IGNORE]
        for i in starts:
            if i - 1 not in starts:
                end = i
                while end < len(labels) and labels[end] != IGNORE:
                    end += 1
                found.append((example["input_ids"][:i], labels[i:end]))
    return found


@pytest.mark.parametrize("messages", [TALK, SYSTEM], ids=["plain", "system"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_learnt_is_the_answer_behind_the_prompt_of_generation(kind, messages):
    tokenizer = tokenizer_with(KINDS[kind])
    found = stretches(encode_examples(tokenizer, messages))
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(found) == 2
    for (before, learnt), i in zip(found, answers, strict=True):
        assert before == template_ids(tokenizer, messages[:i], add_generation_prompt=True)
        assert tokenizer.decode(learnt) == messages[i]["content"] + "<|end|>"


def test_a_system_turn_that_stands_with_the_last_question():
    """As in Mistral Nemo: the whole conversation ends with an answer, and would lose it."""
    template = (
        "{% set asked = messages if messages[0].role != 'system' else messages[1:] %}"
        "{% for m in asked %}{% if m.role == 'user' %}{{ '<|user|>' }}"
        "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content ~ ' ' }}"
        "{% endif %}{{ m.content ~ '<|assistant|>' }}{% else %}{{ m.content ~ '<|end|>' }}"
        "{% endif %}{% endfor %}"
    )
    tokenizer = tokenizer_with(template)
    examples = encode_examples(tokenizer, SYSTEM)
    texts = [tokenizer.decode(example["input_ids"]) for example in examples]
    assert texts == [
        "<|user|>S a<|assistant|>one<|end|>",
        "<|user|>a<|assistant|>one<|end|><|user|>S b<|assistant|>two<|end|>",
    ]


def test_by_hand():
    """Ids: the markers are 0 to 6, a byte has one of its own. The thought in the prompt is not
    learnt; the answer and <|end|> are.
    """
    tokenizer = tokenizer_with(KINDS["thought in the prompt alone"])
    row = encode(tokenizer, TALK[:2])
    pieces = [tokenizer.decode([token]) for token in row["input_ids"]]
    prompt = ["<|user|>", "a", "<|end|>", "<|assistant|>", *"<think></think>"]
    assert pieces == [*prompt, *"one", "<|end|>"]
    assert [label != IGNORE for label in row["labels"]] == [False] * len(prompt) + [True] * 4


def test_a_conversation_of_more_answers_is_no_single_example(capsys):
    tokenizer = tokenizer_with(KINDS["channel before the answer"])
    with pytest.raises(RewrittenTurnError, match="encode_rows makes an example of each answer"):
        encode(tokenizer, TALK)
    context = [TALK[0], {**TALK[1], "weight": 0}, *TALK[2:]]
    assert encode(tokenizer, context)
    assert len(encode_rows(tokenizer, [{"messages": TALK}])) == 2
    assert "1 conversation became 2 examples" in capsys.readouterr().out


def test_a_template_that_continues_its_prompts_stays_one_example():
    tokenizer = tokenizer_with(LOOP + OPEN)
    assert continues_prompts(tokenizer, TALK, None)
    assert len(encode_examples(tokenizer, TALK)) == 1


def test_pairs_are_of_the_same_form():
    tokenizer = tokenizer_with(KINDS["channel before the answer"])
    [pair] = encode_pairs(tokenizer, [{"prompt": "a", "chosen": "one", "rejected": "two"}])
    prompt = template_ids(tokenizer, TALK[:1], add_generation_prompt=True)
    assert pair["prompt_ids"] == prompt
    assert tokenizer.decode(pair["chosen_ids"]) == "one<|end|>"
    assert tokenizer.decode(pair["rejected_ids"]) == "two<|end|>"


@pytest.mark.parametrize("trims", [False, True])
def test_white_space_around_an_answer_is_the_templates(trims):
    template = KINDS["channel before the answer"]
    if trims:
        template = template.replace("m.content ~", "(m.content | trim) ~")
    tokenizer = tokenizer_with(template)
    row = encode(tokenizer, [TALK[0], {"role": "assistant", "content": " one\n"}])
    learnt = tokenizer.decode([label for label in row["labels"] if label != IGNORE])
    assert learnt == ("one<|end|>" if trims else " one\n<|end|>")


def test_a_thought_or_a_call_is_never_left_out():
    """Beside the content there is more to learn, which only the template can write."""
    tokenizer = tokenizer_with(KINDS["channel before the answer"])
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    for more in ({"tool_calls": [call]}, {"reasoning_content": "hm"}):
        with pytest.raises(DataError, match="leaves out"):
            encode(tokenizer, [TALK[0], {**TALK[1], **more}])


def test_without_a_token_that_ends_answers():
    tokenizer = tokenizer_with(LOOP + OPEN)
    with pytest.raises(DataError, match="no token that ends an answer"):
        served_example(tokenizer, TALK[:2], None, stops=[])
