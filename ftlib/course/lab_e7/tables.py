"""The tables of lab E7: what is planned beside what is measured, what travels, what fits where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e7.holding import holding_of_one, sent_by_one
from ftlib.course.lab_e7.pair import COUNT, both
from ftlib.course.lab_e7.settings import Case, at_scale, settings_of
from ftlib.course.lab_e7.steps import train_one_of_two
from ftlib.course.lab_e7.trials import SPLIT, parts_of_steps, task_of
from ftlib.course.records.live import Result
from ftlib.models.load import load_model
from ftlib.training.memory_plan import MemoryPlan, plan_memory

MB = 1e6
GB = 1e9
CONSTANTS = "quantisation constants"
CUT = ("weights", "adapter", "gradients", "optimizer")  # what moves to the CPU when offloaded
FAULT_METRICS = ("gap", "read", "last_loss", "held_out")
GAP_COLUMNS = {
    "gradient": "first gradient",
    "loss": "losses",
    "weights": "trained weights, relative to their change",
}
# Nominal rates in one direction, bytes per second.
WIRES = {
    "Ethernet, 10 Gbit/s": 1.25e9,
    "two Sparks, 200 Gbit/s": 25e9,
    "PCIe 4.0 × 16": 32e9,
}
SHARD_NAMES = {"ddp": "DDP", "zero2": "ZeRO-2", "full": "FSDP2"}
METHOD_NAMES = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}


@dataclass(frozen=True)
class Machines:
    """Several GPUs, or Sparks: `count` of them, `capacity` bytes each, `shared` where the CPU has
    the same memory.
    """

    name: str
    count: int
    capacity: float
    shared: bool = False


MACHINES = (
    Machines("2 × 24 GB", 2, 24 * GB),
    Machines("4 × 80 GB", 4, 80 * GB),
    Machines("2 Sparks, 128 GB each", 2, 128 * GB, shared=True),
)


def case_name(case: Case) -> str:
    method, shard = case
    return f"{METHOD_NAMES[method]}, {SHARD_NAMES[shard]}"


# --- planned and measured -------------------------------------------------------------------------
@dataclass(frozen=True)
class Held:
    """One part of what a process holds after a step: bytes planned, and measured on processes 0
    and 1.
    """

    case: Case
    part: str
    planned: int
    measured: tuple[int, ...]

    @property
    def apart(self) -> int:
        """Bytes by which process 0, whose plan it is, is off it."""
        return self.measured[0] - self.planned


def config_of(profile: Profile) -> dict[str, Any]:
    """The configuration of the model that the two processes train."""
    model, _ = load_model(at_scale(profile).model, None, at_scale(profile))
    return model.config.to_dict()


def plan_of(profile: Profile, config: Mapping[str, Any], case: Case) -> MemoryPlan:
    """The planner's answer for this case, two processes and fp32 on a CPU."""
    method, shard = case
    settings = settings_of(profile)
    return plan_memory(
        dict(config),
        method,
        r=settings.rank,
        batch_size=settings.rows_each,
        seq_len=profile.max_length,
        gradient_checkpointing=False,
        dtype="float32",
        device="cpu",
        gpus=COUNT,
        shard=shard,
    )


def measure_held(profile: Profile, cases: Sequence[Case] = ()) -> list[Held]:
    """Each case trained for a step in the two processes: every part that the planner cuts, planned
    and measured.
    """
    config = config_of(profile)
    found = []
    small = at_scale(profile)
    for case in cases or settings_of(profile).cases:
        task = task_of(small, *case, seed=0)
        parts = parts_of_steps(small, 0, 1)
        courses = both(train_one_of_two, small, task, parts, SPLIT)
        planned = plan_of(profile, config, case).parts
        for part, size in courses[0].held.items():
            sizes = (size, courses[1].held[part])
            if size or planned.get(part, 0):
                found.append(Held(case, part, planned.get(part, 0), sizes))
    return found


def held_table(found: Sequence[Held]) -> list[dict[str, str]]:
    rows = []
    for held in found:
        row = {"run": case_name(held.case), "part": held.part}
        row["planned (bytes)"] = f"{held.planned:,}"
        for rank, size in enumerate(held.measured):
            row[f"process {rank}"] = f"{size:,}"
        row["off the plan"] = f"{held.apart:+,}" if held.apart else "0"
        rows.append(row)
    return rows


def held_line(found: Sequence[Held]) -> str:
    """In how many parts the plan is right to the byte, and what is off."""
    cut = [held for held in found if held.part != CONSTANTS]
    exact = [held for held in cut if held.apart == 0]
    text = f"Equal to the byte on process 0: {len(exact)} of {len(cut)} parts."
    off = [held for held in cut if held.apart]
    if off:
        worst = max(off, key=lambda held: abs(held.apart))
        text += (
            f" The largest difference: {worst.part} of {case_name(worst.case)}, {worst.apart:+,}."
        )
    for held in found:
        if held.part == CONSTANTS:
            share = abs(held.apart) / held.planned
            text += (
                f" The scales of {case_name(held.case)} are whole on both processes, and "
                f"{share:.2%} off the plan, which counts them in bits per weight."
            )
    return text


# --- what is held through a step ------------------------------------------------------------------
def holding(profile: Profile, shard: str) -> list[tuple[str, int]]:
    """(moment, bytes of weights on process 0) through a LoRA step."""
    small = at_scale(profile)
    task = task_of(small, "lora", shard, seed=0)
    parts = parts_of_steps(small, 0, 1)[0]
    return both(holding_of_one, small, task, parts, SPLIT)[0]


# --- what travels ---------------------------------------------------------------------------------
def measure_sent(profile: Profile, cases: Sequence[Case]) -> dict[Case, dict[str, Any]]:
    """What process 0 sends in a step of each case, with the sizes of the model."""
    small = at_scale(profile)
    parts = parts_of_steps(small, 0, 1)[0]
    found = {}
    for case in cases:
        task = task_of(small, *case, seed=0)
        found[case] = both(sent_by_one, small, task, parts, SPLIT)[0]
    return found


def gloo_traffic(found: Mapping[str, Any], shard: str) -> float:
    """Bytes that gloo sends in a step where FSDP2 or DDP ask it to: weights gathered as often as by
    rings, and gradients that are cut by a whole all-reduce, of which each process keeps its part
    (PyTorch has no other reduce-scatter for gloo).
    """
    share = (found["processes"] - 1) / found["processes"]
    gathers = {"ddp": 0, "zero2": 1, "full": 2}[shard]
    return share * (gathers * found["weights"] + 2 * found["gradients"])


def sent_table(measured: Mapping[Case, Mapping[str, Any]], step_traffic) -> list[dict[str, str]]:
    """By rings (the student's formula), by gloo's way, and as counted."""
    rows = []
    for case, found in measured.items():
        by_rings = step_traffic(found["weights"], found["gradients"], found["processes"], case[1])
        sent = found["sent"]
        rows.append(
            {
                "run": case_name(case),
                "weights (MB)": f"{found['weights'] / MB:.2f}",
                "gradients (MB)": f"{found['gradients'] / MB:.2f}",
                "by rings (MB)": f"{by_rings / MB:.2f}",
                "by gloo (MB)": f"{gloo_traffic(found, case[1]) / MB:.2f}",
                "counted (MB)": "not counted here" if sent is None else f"{sent / MB:.2f}",
            }
        )
    return rows


def sent_line(measured: Mapping[Case, Mapping[str, Any]]) -> str:
    """How near the count is to gloo's way."""
    shares = []
    for case, found in measured.items():
        if found["sent"] is not None:
            shares.append(abs(found["sent"] / gloo_traffic(found, case[1]) - 1))
    if not shares:
        return "This system does not say what a process writes to its sockets (Linux does)."
    return f"The counted bytes are within {max(shares):.1%} of those expected from gloo."


# --- what fits ------------------------------------------------------------------------------------
def offloaded(plan: MemoryPlan) -> float:
    """Bytes that stay on a GPU whose shards, their gradients and the optimizer lie on the CPU: an
    estimate, since copies of a block's gradients on their way are left out.
    """
    moved = sum(plan.parts.get(part, 0) for part in CUT)
    stays = plan.total - plan.parts["not held at the same moment"] - moved
    return stays


def fits_table(models: Sequence[str], methods: Sequence[str], seq_len: int) -> list[dict[str, str]]:
    """The smallest plan for each model, method and machine: which kind of sharding it takes, GB on
    each GPU, and whether that fits.
    """
    rows = []
    for model in models:
        for method in methods:
            row = {"model": model, "method": METHOD_NAMES[method]}
            for machines in MACHINES:
                row[machines.name] = _cell(model, method, machines, seq_len)
            rows.append(row)
    return rows


def _cell(model: str, method: str, machines: Machines, seq_len: int) -> str:
    """The least sharding that fits; where none does, what full sharding needs, and what is left of
    it on a GPU when the CPU takes the shards.
    """
    for shard in SHARD_NAMES:
        plan = plan_memory(model, method, seq_len=seq_len, gpus=machines.count, shard=shard)
        if plan.fits(machines.capacity):
            return f"{SHARD_NAMES[shard]}: {plan.total / GB:.1f} GB"
    text = f"no: {plan.total / GB:.1f} GB with FSDP2"
    if machines.shared:
        return text
    left = offloaded(plan)
    on_cpu = machines.count * sum(plan.parts.get(part, 0) for part in CUT)
    if left <= machines.capacity:
        return f"{text}; {left / GB:.1f} GB with {on_cpu / GB:.0f} GB on the CPU"
    return text


# --- records --------------------------------------------------------------------------------------
def fault_table(result: Result) -> list[dict[str, str]]:
    """Means of each fault that has runs."""
    rows = []
    for arm in result.arms:
        means = {metric: result.means(arm, metric).mean() for metric in FAULT_METRICS}
        rows.append(
            {
                "run": arm,
                "first gradient off by": f"{means['gap']:.1%}",
                "different rows read": f"{means['read']:.0%}",
                "training loss at the end": f"{means['last_loss']:.3f}",
                "held-out loss": f"{means['held_out']:.3f}",
            }
        )
    return rows or [{"run": result.why}]


def equality_table(result: Result) -> list[dict[str, str]]:
    """The largest distances over seeds, as numbers rather than logarithms."""
    rows = []
    for arm in result.arms:
        row = {"run": arm}
        for metric, heading in GAP_COLUMNS.items():
            row[heading] = f"{10 ** result.means(arm, metric).max():.0e}"
        rows.append(row)
    return rows or [{"run": result.why}]


# --- wires ----------------------------------------------------------------------------------------
def wire_table(sent: Mapping[str, float]) -> list[dict[str, str]]:
    """What sending takes at least on each of `WIRES`, by strategy, in seconds."""
    rows = []
    for name, rate in WIRES.items():
        row = {"connection": name}
        for strategy, size in sent.items():
            row[strategy] = f"{size / rate:.2f} s"
        rows.append(row)
    return rows
