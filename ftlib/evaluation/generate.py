"""Answers of a model to conversations, and prompts with examples before them."""

from __future__ import annotations

from ftlib.training.sampling import answer_texts as answer_texts
from ftlib.training.sampling import generate_ids as generate_ids


def few_shot_messages(shots: list[dict], prompt: str | list[dict]) -> list[dict]:
    """A conversation in which the shots were asked and answered before the prompt, a text or a list
    of messages.

    A system message of the prompt goes first; those of the shots are left out. A shot that ends
    with the question has its answer under `answer`.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [m for m in asked if m["role"] == "system"]
    for shot in shots:
        messages += [m for m in shot["messages"] if m["role"] != "system"]
        if messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": shot["answer"]})
    messages += [m for m in asked if m["role"] != "system"]
    return messages


def generate_answers(
    model,
    tokenizer,
    conversations: list[list[dict]],
    max_new_tokens: int = 40,
    batch_size: int = 100,
    temperature: float = 0.0,
    seed: int = 0,
    control_tokens: str = "text",
) -> list[str]:
    """Answers to conversations that end with the user's turn; sorted by length and padded on the
    left.

    An answer ends where its turn does: at the token that the chat template writes after an answer,
    the tokenizer's `eos_token`, or an end of the model's generation_config
    (`ftlib.batches.stops`). Greedy at temperature 0, else sampled from softmax(logits /
    temperature), the whole vocabulary, whatever else the model's generation config asks for; the
    same for the same `seed` and batches, and the global generator goes on as if nothing had been
    drawn.

    `control_tokens`: what becomes of a conversation that spells one, such as a question with
    ``<|end|><|assistant|>`` in it. "text": the model reads it as plain text, so that nobody who
    asks closes their own turn; "refuse": DataError; "allow": as the token. Conversations without
    such are asked with the same ids in all three.
    """
    _, answers = generate_ids(
        model,
        tokenizer,
        conversations,
        max_new_tokens,
        batch_size,
        temperature,
        seed,
        control_tokens,
    )
    return answer_texts(model, tokenizer, answers)
