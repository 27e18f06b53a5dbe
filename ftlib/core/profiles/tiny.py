"""`tiny`: the embedded model of 4M parameters and its made-up world, offline, on a CPU."""

from __future__ import annotations

from ftlib.core.paths import EMBEDDED
from ftlib.core.profiles.parts import Profile

PROFILE = Profile(
    name="tiny",
    model=EMBEDDED,
    dataset="embedded",
    dtype="float32",
    precision="fp32",
    batch_size=16,
    max_length=256,
    steps=550,
    short_steps=160,
    seeds=(0, 1, 2),
    lr_lora=1.5e-3,
    lr_full=5e-4,
    lr_prefix=0.1,
    lr_bottleneck=3e-3,
    rank=16,
    max_new_tokens=40,
    eval_examples=100,
    download_gb=0.0,
    full_finetuning=True,
)
