"""Shared by all tests: tiny random models, a byte tokenizer with three chat templates, no network,
one thread.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    OMP_WAIT_POLICY="PASSIVE",
    TOKENIZERS_PARALLELISM="false",
    FTLIB_PROFILE="tiny",
    TRL_EXPERIMENTAL_SILENCE="1",
    MPLBACKEND="Agg",
)
# The same tests on every machine; what a GPU adds is checked by the labs there.
os.environ["CUDA_VISIBLE_DEVICES"] = ""
for name in ("FTLIB_MODEL", "FTLIB_ROWS", "FTLIB_DATA_ROOT", "FTLIB_GRADING", "NBGRADER_EXECUTION"):
    os.environ.pop(name, None)

# jsonschema's optional check of IRIs, which no schema here asks for: nbformat imports it, and its
# grammar takes seconds to build.
sys.modules["rfc3987_syntax"] = None

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the package `data`, which is not installed

import torch  # noqa: E402 - it reads the environment that is set above

settings.register_profile("ftlib", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("ftlib")
# For the fixtures of a module or session, which come before those of a test.
torch.set_num_threads(1)
EMBEDDED = ROOT / "data" / "world-llama-4m"

PLAIN_SPECIALS = [
    "<|bos|>",
    "<|eos|>",
    "<|pad|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|end|>",
    "<unk>",
]
LLAMA_SPECIALS = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
]
CHATML_SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
# One conversation format each, with the answer marked by {% generation %} and without marks.
PLAIN = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' ~ m['role'] ~ '|>' }}{% if m['role'] == "
    "'assistant' %}"
    "{% generation %}{{ m['content'] ~ '<|end|>' }}{% endgeneration %}{% else %}{{ m['content'] ~ "
    "'<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LLAMA3 = (
    "{{- bos_token }}{% for m in messages %}"
    "{{- '<|start_header_id|>' ~ m['role'] ~ '<|end_header_id|>\n\n' }}{% if m['role'] == "
    "'assistant' %}"
    "{%- generation %}{{- m['content'] | trim ~ '<|eot_id|>' }}{%- endgeneration %}{% else %}"
    "{{- m['content'] | trim ~ '<|eot_id|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% "
    "endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m['role'] ~ '\n' }}{% if m['role'] == 'assistant' "
    "%}"
    "{% generation %}{{ m['content'] ~ '<|im_end|>' }}{% endgeneration %}{% else %}"
    "{{ m['content'] ~ '<|im_end|>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

VARIANTS = {  # of LoRA
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "rsdora": {"use_dora": True, "use_rslora": True},
}


def unmarked(template: str) -> str:
    """The same template without its generation marks."""
    for mark in (
        "{% generation %}",
        "{% endgeneration %}",
        "{%- generation %}",
        "{%- endgeneration %}",
    ):
        template = template.replace(mark, "")
    return template


# Gemma's layout: the turn ends in a token that is not the tokenizer's eos, and a newline.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' ~ ('model' if m.role == "
    "'assistant' else m.role) ~ '\n' ~ m.content ~ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def byte_tokenizer(template: str | None = PLAIN, **tokens):
    """A tokenizer of single bytes: every text is as many tokens as bytes, and each chat marker is
    one token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = {LLAMA3: LLAMA_SPECIALS, CHATML: CHATML_SPECIALS}.get(template, PLAIN_SPECIALS)
    tok = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(specials + alphabet)}, merges=[]))
    tok.pre_tokenizer, tok.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        decoders.ByteLevel(),
    )
    tok.add_special_tokens(specials)
    names = {
        LLAMA3: {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        CHATML: {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
    }.get(template, {"bos_token": "<|bos|>", "eos_token": "<|end|>", "pad_token": "<|pad|>"})
    names = {k: v for k, v in {**names, **tokens}.items() if v is not None}
    if "bos_token" in names:
        bos = names["bos_token"]
        tok.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tok.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=tok, chat_template=template, **names)


def gemma_tokenizer():
    """A byte tokenizer with Gemma's markers and layout; its eos is another token."""
    tokenizer = byte_tokenizer(eos_token="<|eos|>")
    markers = ["<start_of_turn>", "<end_of_turn>"]
    tokenizer.add_special_tokens({"additional_special_tokens": markers})
    tokenizer.chat_template = GEMMA
    return tokenizer


def llama(
    layers: int = 2, hidden: int = 32, vocab: int = 280, seed: int = 0, dtype=torch.float32, **more
):
    """A random Llama with grouped-query attention, in evaluation mode as from_pretrained returns
    it.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    options = dict(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=6,
        pad_token_id=2,
    )
    return LlamaForCausalLM(LlamaConfig(**{**options, **more})).to(dtype).eval()


def randomize(model, seed: int = 1, scale: float = 0.05):
    """Give every adapter weight a random value, as if it had been trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                noise = torch.randn(p.shape, generator=generator).to(p)
                p.mul_(1 + scale * noise) if "magnitude" in name else p.copy_(scale * noise)
    return model


def snapshot(model) -> dict:
    """Weights by name and the type of every module, to prove that a model was left alone."""
    return {
        "weights": {k: v.clone() for k, v in model.state_dict().items()},
        "types": {n: type(m) for n, m in model.named_modules()},
        "grad": {n: p.requires_grad for n, p in model.named_parameters()},
    }


def assert_untouched(model, before: dict) -> None:
    after = snapshot(model)
    assert after["types"] == before["types"] and after["grad"] == before["grad"]
    assert after["weights"].keys() == before["weights"].keys()
    assert all(torch.equal(after["weights"][k], v) for k, v in before["weights"].items())


def exit_code_of_a_child(function) -> int:
    """Run `function()` in a forked process, which has all libraries loaded, and wait for its end;
    minus the signal that killed it. What it prints is this test's output."""
    child = multiprocessing.get_context("fork").Process(target=function)
    child.start()
    child.join(timeout=300)
    if child.exitcode is None:
        child.kill()
        pytest.fail("the child did not end")
    return child.exitcode


def chat(prompt: str, answer: str, **more) -> dict:
    return {
        "messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}],
        **more,
    }


def pytest_collection_finish(session) -> None:
    """A million objects of the imported libraries are set aside: else each `gc.collect()`, and
    every Trainer ends with one, walks them for a third of a second.
    """
    gc.collect()
    gc.freeze()


# --- `make test` on several cores: pytest-xdist runs a controller and a worker a core ------------
MOST_WORKERS = 4  # each holds torch, transformers and what its tests train: up to 1.5 GB


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int:
    """What `-n auto` means here. 0, that is no workers, where there is one core, and where files or
    a word are named: what one is at has run before workers have started.
    """
    a_few_tests = config.option.file_or_dir or config.option.keyword
    cores = min(MOST_WORKERS, usable_cores())
    return 0 if a_few_tests or cores == 1 else cores


def executes_a_notebook(nodeid: str) -> bool:
    return "::test_execution_from_top_to_bottom_unsolved[" in nodeid


def unit_of_work(nodeid: str) -> str:
    """A file's tests stay in one worker, so that what they share is computed once. An executed
    notebook is work by itself."""
    return nodeid if executes_a_notebook(nodeid) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByUnit(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of_work(nodeid)

    config.option.loadscopereorder = False  # in the order of the collection, which is made below
    return ByUnit(config, log)


# Short to read, long to run: they start processes.
LONG_FILES = ("test_grading.py", "test_documents.py", "test_distributed.py")


def longest_first(items: list) -> list:
    """Notebooks, then files that take long, then the others by their size: no core idles at the
    end.
    """

    def rank(item) -> tuple:
        notebook = executes_a_notebook(item.nodeid)
        return not notebook, item.path.name not in LONG_FILES, -item.path.stat().st_size

    return sorted(items, key=rank)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    in_a_worker = hasattr(config, "workerinput")
    if in_a_worker:  # a run in one process begins with what is quick
        items[:] = longest_first(items)


def this_commit() -> str:
    """What draws a share of tests that are too many for one run: another commit, other tests."""
    done = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True)
    return done.stdout.decode().strip() or "no checkout"


def needs_llama() -> None:
    """Skip where llama.cpp is not there or does not run: tried in a subprocess, which may die."""
    from ftlib.export.llama_probe import probe_llama

    found = probe_llama()
    if not found.fine:
        pytest.skip(
            f"only lab 3.1.10 and its tests need it: {found.problem}", allow_module_level=True
        )


@pytest.fixture(autouse=True)
def _own_progress_file(tmp_path_factory, monkeypatch):
    """No test writes into the progress of whoever runs it; notebooks and commands that a test
    starts inherit this.
    """
    monkeypatch.setenv(
        "FTLIB_PROGRESS", str(tmp_path_factory.getbasetemp() / "no-progress" / "progress.json")
    )


@pytest.fixture(autouse=True)
def _one_thread_and_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def model():
    return llama()


@pytest.fixture
def ids():
    return torch.randint(8, 280, (2, 7), generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def rows():
    """24 short questions with one-word answers; families alternate."""
    return [
        {**chat(f"Say {w}{i}.", f"{w}{i}", family=("odd", "even")[i % 2 == 0]), "answer": f"{w}{i}"}
        for i, w in enumerate(["ab", "cde", "f", "gh"] * 6)
    ]
