"""The file from which `accelerate launch` starts FSDP2: for GPUs of one machine, and for several
machines that are connected, such as two DGX Sparks; read again by accelerate's own reader.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.fsdp import CPUOffloadPolicy

from ftlib.core.atomic import replacing

PORT = 29500  # on which process 0 is asked for the others' addresses
SCRIPT = ["-m", "ftlib.cli", "sft", "--profile", "spark", "--output", "runs/sharded"]


def launch_settings(
    gpus: int = 2,
    machines: int = 1,
    machine: int = 0,
    address: str = "",
    offload: bool = False,
) -> dict[str, Any]:
    """accelerate's settings for FSDP2 over `gpus` GPUs in all, on `machines` machines.

    machine: the number of the one that reads the file, from 0. address: of machine 0, on the
    connection that the machines share. offload: keep shards, their gradients and the optimizer in
    the CPU's memory. ValueError for numbers that do not fit together, and for several machines
    without an address.
    """
    if gpus % machines:
        raise ValueError(f"gpus={gpus} over machines={machines}: each machine has equally many")
    if not 0 <= machine < machines:
        raise ValueError(f"machine={machine}: use a number from 0 to {machines - 1}")
    if machines > 1 and not address:
        raise ValueError(f"machines={machines} without address: give machine 0's, '192.168.100.10'")
    settings = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
            "fsdp_cpu_ram_efficient_loading": False,
            "fsdp_offload_params": offload,
        },
        "mixed_precision": "no",
        "num_machines": machines,
        "num_processes": gpus,
        "machine_rank": machine,
        "main_training_function": "main",
    }
    if machines > 1:
        settings["main_process_ip"] = address
        settings["main_process_port"] = PORT
        settings["rdzv_backend"] = "static"
        settings["same_network"] = True
    return settings


def write_launch(path: Path, settings: dict[str, Any]) -> Path:
    """The settings as a YAML file; returns its path."""
    with replacing(path) as temporary:
        temporary.write_text(as_yaml(settings), encoding="utf-8")
    return path


def as_yaml(settings: dict[str, Any], indent: str = "") -> str:
    """YAML of nested dicts; its texts and numbers are written as JSON's, which YAML reads."""
    lines = []
    for name, value in settings.items():
        if isinstance(value, dict):
            lines.append(f"{indent}{name}:\n{as_yaml(value, indent + '  ')}")
        else:
            lines.append(f"{indent}{name}: {json.dumps(value)}\n")
    return "".join(lines)


def read_launch(path: Path) -> tuple[ClusterConfig, FullyShardedDataParallelPlugin]:
    """The file as accelerate reads it, and FSDP's settings as it checks them. ValueError, from
    accelerate, for a key or a value that it does not know.
    """
    config = load_config_from_file(str(path))
    given = config.fsdp_config
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=given["fsdp_version"],
        auto_wrap_policy=given["fsdp_auto_wrap_policy"],
        reshard_after_forward=given["fsdp_reshard_after_forward"],
        state_dict_type=given["fsdp_state_dict_type"],
        cpu_ram_efficient_loading=given["fsdp_cpu_ram_efficient_loading"],
        cpu_offload=given["fsdp_offload_params"],
    )
    return config, plugin


def launch_command(path: Path | str) -> str:
    """The command for this file, which accelerate's own parser has read."""
    words = ["--config_file", str(path), *SCRIPT]
    launch_command_parser().parse_args(words)
    return " ".join(["accelerate launch", *words])


def read_back(path: Path) -> dict[str, Any]:
    """A row on what accelerate has read from a file, for a table."""
    config, plugin = read_launch(path)
    each = config.num_processes // config.num_machines
    return {
        "file": path.name,
        "machines × processes": f"{config.num_machines} × {each}",
        "this machine": config.machine_rank,
        "process 0 at": config.main_process_ip or "this machine",
        "FSDP": plugin.fsdp_version,
        "lets go after forward": plugin.reshard_after_forward,
        "shards on the CPU": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
    }
