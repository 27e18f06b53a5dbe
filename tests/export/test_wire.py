"""Log-probabilities over the wire: what rounding moves, and what faults move."""

from __future__ import annotations

import pytest
import torch
from conftest import ROOT, needs_llama

import ftlib as ft
from ftlib.core.paths import EMBEDDED
from ftlib.export.errors import ServingError
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.make_modelfile import write_modelfile
from ftlib.export.server import Reply
from ftlib.export.serving import serve
from ftlib.export.wire import compare_logprobs

CHATS = [row["messages"][:1] for row in ft.load_rows("golden")[:4]]


@pytest.fixture(scope="module")
def trained():
    """(model with the shipped adapter, tokenizer)."""
    model, tokenizer = ft.load_model(EMBEDDED)
    ft.load_adapter(model, ROOT / "data" / "sft-adapter")
    return model, tokenizer


class Fake:
    """A server whose answers are given, with these log-probabilities."""

    def __init__(self, text: str, logprobs: tuple[float, ...]):
        self.text = text
        self.logprobs = logprobs

    def chat(self, messages, logprobs, temperature, max_tokens):
        assert logprobs and temperature == 0 and max_tokens == 40
        return Reply(self.text, "fake", 1, 1.0, "", logprobs=self.logprobs)


def test_by_hand(trained):
    """The positions before the two tokens give their ln p; the server says 0.5 more and 0.25 less:
    0.375 on average.
    """
    model, tokenizer = trained
    [first, second] = tokenizer(" yes no", add_special_tokens=False)["input_ids"][:2]
    text = tokenizer.decode([first, second])
    prompt = tokenizer.apply_chat_template(
        CHATS[0], add_generation_prompt=True, tokenize=True, return_dict=True
    )["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, first]])).logits[0]
    logp = logits.double().log_softmax(-1)
    right = (logp[-2, first].item(), logp[-1, second].item())
    served = Fake(text, (right[0] + 0.5, right[1] - 0.25))
    report = compare_logprobs(model, tokenizer, served, CHATS[:1])
    assert report.mean == pytest.approx(0.375, abs=1e-5)
    assert report.worst == pytest.approx(0.5, abs=1e-5)
    assert (report.tokens, report.answers, report.other_tokens) == (2, 1, 0)
    assert "2 tokens of 1 answers: log-probabilities differ by 0.38" in str(report)
    with_stop = Fake(text, (*right, -0.1))  # the stop token counts, but is not in the text
    assert compare_logprobs(model, tokenizer, with_stop, CHATS[:1]).worst < 1e-5
    with pytest.raises(ServingError, match="none of 1 answers could be compared"):
        compare_logprobs(model, tokenizer, Fake(text, (0.0,) * 9), CHATS[:1])


def gap(trained, file, **options) -> float:
    model, tokenizer = trained
    modelfile = write_modelfile(
        file.parent / "Modelfile",
        file,
        **{"tokenizer": tokenizer, **options},
        num_ctx=512,
        parameters={"num_thread": 1},
    )
    served = serve(modelfile, "m", runtime="llama-cpp-python", timeout=120, logprobs=True)
    with served as server:
        return compare_logprobs(model, tokenizer, server, CHATS).mean


def test_a_fault_moves_them_and_rounding_does_not(trained, tmp_path, monkeypatch):
    """The wrong template, and q and k in transformers' order of rows: both load and answer."""
    needs_llama()
    model, tokenizer = trained
    file = export_gguf(model, tokenizer, tmp_path / "f16.gguf")
    exact = gap(trained, file)
    eight = gap(trained, export_gguf(model, tokenizer, tmp_path / "q8.gguf", "q8_0"))
    template = ft.go_template(tokenizer)
    wrong = gap(trained, file, template=template.replace("<|end|>", "", 1))
    monkeypatch.setattr("ftlib.export.gguf_names.rotary_pairs", lambda weight, heads: weight)
    permuted = gap(trained, export_gguf(model, tokenizer, tmp_path / "permuted.gguf"))
    assert exact < 0.01 and eight < 0.05
    assert min(wrong, permuted) > 5 * eight
