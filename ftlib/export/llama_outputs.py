"""What llama.cpp makes of a file: a chat's token ids, greedy answers, logits."""

from __future__ import annotations

import numpy as np
import torch

PENALISED = 64  # tokens back that a repeat penalty counts


def llama_chat_ids(llama, chat: list[dict]) -> list[int]:
    """Token ids of a chat as llama-cpp-python's chat completion makes them: the file's template,
    the file's tokenizer.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    def text(token: int) -> str:
        if token < 0:
            return ""
        return llama.detokenize([token], special=True).decode()

    formatter = Jinja2ChatFormatter(
        llama.metadata["tokenizer.chat_template"],
        eos_token=text(llama.token_eos()),
        bos_token=text(llama.token_bos()),
    )
    made = formatter(messages=chat)
    return llama.tokenize(made.prompt.encode(), add_bos=not made.added_special, special=True)


def llama_answer(
    llama, ids: list[int], max_new_tokens: int, repeat_penalty: float = 1.0
) -> list[int]:
    """llama.cpp's greedy continuation, up to and with a token at which it ends generation by
    itself. `repeat_penalty`: of the tokens among the last 64, prompt included, the logit is divided
    by it where it is positive, else multiplied, as Ollama does. (llama-cpp-python's own counts the
    generated tokens alone.)
    """
    from llama_cpp import LogitsProcessorList, llama_model_get_vocab, llama_vocab_is_eog

    def penalise(tokens, logits):
        recent = np.unique(tokens[-PENALISED:])
        values = logits[recent]
        logits[recent] = np.where(values > 0, values / repeat_penalty, values * repeat_penalty)
        return logits

    processors = None if repeat_penalty == 1.0 else LogitsProcessorList([penalise])
    vocab = llama_model_get_vocab(llama.model)
    out: list[int] = []
    for token in llama.generate(ids, temp=0.0, logits_processor=processors):
        out.append(token)
        if len(out) == max_new_tokens or llama_vocab_is_eog(vocab, token):
            break
    return out


def llama_logits(llama, ids: list[int]) -> torch.Tensor:
    """Logits (T, V) of every position, fp32."""
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(llama.scores[: len(ids)].copy())
