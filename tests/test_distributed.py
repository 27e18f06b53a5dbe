"""Two processes on the CPU (gloo) train as one does: the recipe, started by torchrun as `accelerate
launch` starts it on GPUs, `prefer`, and ftlib's layers under FSDP2.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import CHATML, ROOT, byte_tokenizer, llama
from safetensors.torch import load_file

import ftlib as ft
from ftlib.cli import main
from ftlib.training.prefer import prefer

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available(), reason="PyTorch without distributed"
)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sft(output: Path, batch_size: int) -> None:
    """`ftlib sft` for ten steps."""
    options = ["--profile", "tiny", "--steps", "10", "--rank", "4"]
    assert main(["sft", "--output", str(output), "--batch-size", str(batch_size), *options]) == 0


def losses(output: Path) -> list[float]:
    state = max(
        output.glob("checkpoint-*/trainer_state.json"),
        key=lambda p: int(p.parent.name.split("-")[1]),
    )
    return [e["loss"] for e in json.loads(state.read_text())["log_history"] if "loss" in e]


def test_two_processes_train_as_one(both, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    one = tmp_path / "one"
    two = both / "recipe"
    sft(one, 8)
    assert len(losses(one)) == 2 and losses(two) == pytest.approx(losses(one), rel=1e-4)
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=2e-4) for k in a)
    manifest = json.loads((two / "manifest.json").read_text())
    assert (
        manifest["processes"] == 2
        and manifest["metrics"]["tokens"]
        == json.loads((one / "manifest.json").read_text())["metrics"]["tokens"]
    )


PAIRS = [
    {"prompt": f"Say {w}{i}.", "chosen": f"{w}{i}", "rejected": f"no{w * (i % 3)}!"}
    for i, w in enumerate(["ab", "cde", "f", "gh"] * 3)
]
ROWS = [
    {
        "messages": [
            {"role": "user", "content": p["prompt"]},
            {"role": "assistant", "content": p["chosen"]},
        ]
    }
    for p in PAIRS
]


def train_some(loss: str, folder: str, batch_size: int, learning_rate: float = 1e-2) -> None:
    """Five steps into `folder`/run, the reference cached; process 0 writes the history."""
    Path(folder).mkdir(exist_ok=True)
    torch.manual_seed(0)
    model = ft.add_lora(
        llama(layers=1, initializer_range=0.3, vocab_size=300), r=2, lora_dropout=0.0
    )
    rows, options = (ROWS, {}) if loss == "sft" else (PAIRS, {"loss": loss})
    run = (ft.finetune if loss == "sft" else prefer)(
        model,
        byte_tokenizer(CHATML),
        rows,
        steps=5,
        learning_rate=learning_rate,
        batch_size=batch_size,
        eval_rows=rows[:5],
        eval_steps=1,
        output_dir=Path(folder) / "run",
        log_steps=1,
        show=False,
        **options,
    )
    if int(os.environ.get("RANK", 0)) == 0:
        (Path(folder) / "history.json").write_text(json.dumps([run.history, run.eval_history]))


def assert_same_histories(folder: Path, other: Path) -> None:
    for alone, shared in zip(
        *(json.loads((f / "history.json").read_text()) for f in (folder, other)), strict=True
    ):
        assert len(alone) == len(shared) > 0
        for a, b in zip(alone, shared, strict=True):
            assert b == pytest.approx(a, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("loss", ["sft", "dpo", "simpo", "orpo"])
def test_losses_and_metrics_of_two_processes_are_those_of_one(loss, both, tmp_path):
    """The same rows in a step, the same reference, means over both processes' rows; of five to
    evaluate on, none counts twice.
    """
    train_some(loss, str(tmp_path), 4)
    assert_same_histories(tmp_path, both / loss)
    a, b = (
        load_file(folder / "run" / "adapter" / "adapter_model.safetensors")
        for folder in (tmp_path, both / loss)
    )
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-4) for k in a)


def test_kto_evaluates_in_two_processes_as_in_one(both, tmp_path):
    """Its z0 is that of a batch: equal where the batches are. The steps are too short to change a
    weight.
    """
    train_some("kto", str(tmp_path), 2, 1e-12)
    a, b = (
        json.loads((folder / "history.json").read_text())[1] for folder in (tmp_path, both / "kto")
    )
    assert [pytest.approx(x, rel=1e-4, abs=1e-5) for x in a] == b and len(a) == 5


def adapted(use_dora: bool):
    torch.manual_seed(0)
    return ft.add_lora(
        llama(dtype=torch.float64, tie_word_embeddings=False), r=4, use_dora=use_dora
    ).train()


def steps(model, ids, count: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    seen = []
    for _ in range(count):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seen.append(loss.item())
    return seen


IDS = torch.arange(8, 56).view(4, 12)


def shard_and_train(use_dora: bool, folder: Path) -> None:
    """In each of two processes: half of every parameter, half of the rows."""
    from torch.distributed.fsdp import fully_shard

    folder.mkdir(exist_ok=True)
    rank = torch.distributed.get_rank()
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    model = adapted(use_dora)
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    mine = torch.tensor(steps(model, IDS[2 * rank : 2 * rank + 2]))
    torch.distributed.all_reduce(mine)
    ft.save_adapter(model, folder / "adapter")
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps((mine / 2).tolist()))
    torch.distributed.barrier()


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_sharded_by_fsdp2(use_dora, both):
    """Rows of one length, so that the mean of the two processes' losses is the loss of all rows."""
    alone = adapted(use_dora)
    folder = both / ("dora" if use_dora else "lora")
    assert json.loads((folder / "losses.json").read_text()) == pytest.approx(
        steps(alone, IDS), rel=1e-6
    )
    saved = load_file(folder / "adapter" / "adapter_model.safetensors")
    for name, layer in ft.lora_layers(alone).items():
        torch.testing.assert_close(
            saved[f"base_model.model.{name}.lora_B.weight"],
            layer.lora_B.detach(),
            rtol=1e-6,
            atol=1e-8,
        )


# --- the two processes ---------------------------------------------------------------------------
def one_of_two(folder: Path) -> None:
    """All that the tests compare, in each of two processes that torchrun has started; half as many
    rows as there are in one."""
    torch.set_num_threads(1)
    sft(folder / "recipe", 4)
    for loss in ("sft", "dpo", "simpo", "orpo"):
        train_some(loss, f"{folder}/{loss}", 2)
    train_some("kto", f"{folder}/kto", 2, 1e-12)
    for use_dora, name in ((False, "lora"), (True, "dora")):
        shard_and_train(use_dora, folder / name)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """The folder of two processes. One launch for all tests: each process imports the libraries
    again.
    """
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command = [*torchrun, "--master_port", str(free_port()), __file__, str(folder)]
    settings = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return folder


if __name__ == "__main__":
    one_of_two(Path(sys.argv[1]))
