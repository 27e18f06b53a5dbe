"""Does the installed llama.cpp run on this processor? Tried in a process of its own, which may die.

One that was compiled for another processor, or for one that claims more than it can, ends the whole
process by an illegal instruction at its first quantised product: a kernel, a test run, a server. So
nothing in ftlib calls it before this. `python -P ftlib/export/llama_probe.py` prints what was found
and ends with 0 if it runs. Needs neither torch nor transformers.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
# Outside the checkout's .venv, as in conda. pip's cache does not know how a wheel was built.
BY_HAND = (
    "pip uninstall -y llama-cpp-python; CMAKE_ARGS=-DGGML_NATIVE=OFF "
    "pip install --no-cache-dir -c constraints.txt -e '.[export]'"
)
REASON = "ftlib-export-failed"  # file in .venv, where tools/venv.py says why it could not compile
PATIENCE = 120  # seconds; it takes one or two
# llama.cpp's number of each type that is tried: F16 stays as it is written.
TYPES = {"F16": None, "Q8_0": 7, "Q4_K_M": 15}
WIDTH = 256  # k-quants need rows of 256
VOCABULARY = 64


@dataclass(frozen=True)
class Probe:
    """What the trial showed. `status`: "fine", "missing", "died" or "failed"; `what` says why."""

    status: str
    what: str = ""
    features: str = ""

    @property
    def fine(self) -> bool:
        return self.status == "fine"

    @property
    def problem(self) -> str:
        """`what` and how to fix it; empty where all is fine."""
        if self.fine:
            return ""
        if self.status == "missing":
            return f"{self.what}: {fix_command()}"
        return f"{self.what}: rebuild by `{fix_command()}`"

    def __str__(self) -> str:
        return f"llama.cpp runs: {self.features}" if self.fine else self.problem


def fix_command() -> str:
    """The command that compiles llama-cpp-python for this Python."""
    ours = Path(sys.prefix).resolve() == CHECKOUT / ".venv"
    return "make export" if ours else BY_HAND


@functools.cache
def probe_llama() -> Probe:
    """Try the installed llama.cpp in a subprocess, once for each process that asks."""
    if importlib.util.find_spec("llama_cpp") is None:
        return Probe("missing", f"llama-cpp-python is not installed{_why_not()}")
    with tempfile.TemporaryDirectory(prefix="ftlib-probe-") as folder:
        command = [sys.executable, "-P", str(Path(__file__).resolve()), folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            return Probe("failed", f"llama-cpp-python did not compute a token in {PATIENCE} s")
    return _judge(done.returncode, done.stdout, done.stderr)


def _judge(code: int, output: str, errors: str) -> Probe:
    """What the process's end and its output say."""
    facts = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    features = next((fact["features"] for fact in facts if "features" in fact), "")
    tried = [fact["try"] for fact in facts if "try" in fact]
    if code == 0:
        return Probe("fine", features=features)
    if code < 0:
        at = f" at {tried[-1]}" if tried else ""
        what = f"llama-cpp-python dies on this processor{at}: {death(code)}"
        return Probe("died", what, features)
    last = errors.strip().splitlines()[-1:] or ["no message"]
    return Probe("failed", f"llama-cpp-python does not run (exit {code}: {last[0]})", features)


def death(code: int) -> str:
    """How a process with this negative exit status died."""
    if -code == signal.SIGILL:
        return "illegal instruction"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _why_not() -> str:
    """The reason that tools/venv.py left, in parentheses."""
    file = Path(sys.prefix) / REASON
    return f" ({file.read_text(encoding='utf-8').strip()})" if file.is_file() else ""


# --- in the subprocess ------------------------------------------------------------------------
def write_model(path: Path) -> None:
    """A Llama of one layer with random weights in f16 and no tokenizer."""
    import numpy as np
    from gguf import GGUFWriter, LlamaFileType

    writer = GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("none")
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    random = np.random.default_rng(0)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        weight = random.normal(0, 0.05, (WIDTH, WIDTH))
        writer.add_tensor(f"blk.0.{name}.weight", weight.astype(np.float16))
    for name in ("blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, np.float32))
    for name in ("token_embd", "output"):
        weight = random.normal(0, 0.05, (VOCABULARY, WIDTH))
        writer.add_tensor(f"{name}.weight", weight.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def evaluate(path: Path):
    """Logits after four tokens at once and one alone: llama.cpp has other products for each."""
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        str(path),
        n_ctx=64,
        n_threads=1,
        n_threads_batch=1,
        n_gpu_layers=0,
        logits_all=True,
        verbose=False,
    )
    model.eval([1, 2, 3, 4])
    model.eval([5])
    logits = np.array(model.scores[:5])
    model.close()
    return logits


def quantise(source: Path, target: Path, number: int) -> None:
    import ctypes

    import llama_cpp

    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = number
    options.nthread = 1
    names = (str(source).encode(), str(target).encode())
    code = llama_cpp.llama_model_quantize(*names, ctypes.byref(options))
    if code:
        raise RuntimeError(f"llama.cpp could not quantise to {target.stem} ({code})")


def try_everything(folder: Path) -> None:
    """Say what is tried before it is: after an illegal instruction nothing can be said."""
    import llama_cpp
    import numpy as np

    _say(features=llama_cpp.llama_print_system_info().decode(errors="replace").strip())
    source = folder / "F16.gguf"
    write_model(source)
    logits = {}
    for name, number in TYPES.items():
        _say(**{"try": name})
        path = folder / f"{name}.gguf"
        if number is not None:
            quantise(source, path, number)
        logits[name] = evaluate(path)
        gap = float(np.abs(logits[name] - logits["F16"]).max())
        _say(name=name, gap=gap)
        if not gap <= 0.5 * float(np.abs(logits["F16"]).max()):
            raise RuntimeError(f"logits of {name} differ from those of F16 by {gap:.3g}")


def _say(**fact) -> None:
    print(json.dumps(fact), flush=True)


def main(arguments: list[str]) -> int:
    if arguments:
        try_everything(Path(arguments[0]))
        return 0
    found = probe_llama()
    print(found)
    return 0 if found.fine else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
