"""Two processes on the CPU (gloo) train as one does: the recipe, started by torchrun as `accelerate launch` starts it on GPUs, and ftlib's layers under FSDP2."""
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from conftest import ROOT, llama
from safetensors.torch import load_file

import ftlib as ft

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def sft(output: Path, processes: int, batch_size: int) -> Path:
    """`ftlib sft` for ten steps."""
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port()), "-m"] if processes > 1 else ["-m"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *launch, "ftlib.cli", "sft", "--profile", "tiny", "--output", str(output), "--steps", "10", "--rank", "4",
                           "--batch-size", str(batch_size)], cwd=output.parent, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return output


def losses(output: Path) -> list[float]:
    state = max(output.glob("checkpoint-*/trainer_state.json"), key=lambda p: int(p.parent.name.split("-")[1]))
    return [e["loss"] for e in json.loads(state.read_text())["log_history"] if "loss" in e]


def test_two_processes_train_as_one(tmp_path):
    one, two = sft(tmp_path / "one", 1, 8), sft(tmp_path / "two", 2, 4)
    assert len(losses(one)) == 2 and losses(two) == pytest.approx(losses(one), rel=1e-4)
    a, b = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (one, two))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=2e-4) for k in a)
    manifest = json.loads((two / "manifest.json").read_text())
    assert manifest["processes"] == 2 and manifest["metrics"]["tokens"] == json.loads((one / "manifest.json").read_text())["metrics"]["tokens"]


def adapted(use_dora: bool):
    torch.manual_seed(0)
    return ft.add_lora(llama(dtype=torch.float64, tie_word_embeddings=False), r=4, use_dora=use_dora).train()


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


def shard_and_train(rank: int, port: int, use_dora: bool, folder: str) -> None:
    """In each of two processes: half of every parameter, half of the rows."""
    from torch.distributed.fsdp import fully_shard
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = adapted(use_dora)
    for block in model.model.layers:
        fully_shard(block, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    fully_shard(model, mesh=torch.distributed.device_mesh.init_device_mesh("cpu", (2,)))
    mine = torch.tensor(steps(model, IDS[2 * rank: 2 * rank + 2]))
    torch.distributed.all_reduce(mine)
    ft.save_adapter(model, Path(folder) / "adapter")
    if rank == 0:
        (Path(folder) / "losses.json").write_text(json.dumps((mine / 2).tolist()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("use_dora", [False, True], ids=["lora", "dora"])
def test_sharded_by_fsdp2(use_dora, tmp_path):
    """Rows of one length, so that the mean of the two processes' losses is the loss of all rows."""
    mp.spawn(shard_and_train, (free_port(), use_dora, str(tmp_path)), nprocs=2)
    alone = adapted(use_dora)
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(steps(alone, IDS), rel=1e-6)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, layer in ft.lora_layers(alone).items():
        torch.testing.assert_close(saved[f"base_model.model.{name}.lora_B.weight"], layer.lora_B.detach(), rtol=1e-6, atol=1e-8)
