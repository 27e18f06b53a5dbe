"""What lab E6 runs at in each profile: one run of SFT and one of DPO, short enough to be run twice.

The values of `Common` are the ground on which both sides meet: every default in which the libraries
differ is set to one value on both.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.profiles import Profile

TOLERANCE = 1e-4  # nats between two losses of one step that count as the same


@dataclass(frozen=True)
class Common:
    """Steps, rows and rates of the two runs; a batch is one forward pass, `accumulate` of them make
    a step. `dpo_rate` is DPO's learning rate, `test_rows` and `test_pairs` are held out.
    """

    steps: int = 12
    batch: int = 8
    accumulate: int = 2
    rate: float = 2e-3
    warmup: float = 0.1
    r: int = 8
    lora_alpha: float = 16
    dpo_steps: int = 6
    dpo_batch: int = 4
    dpo_accumulate: int = 1
    dpo_rate: float = 8e-4
    beta: float = 0.1
    test_rows: int = 100
    test_pairs: int = 24

    @property
    def rows_a_step(self) -> int:
        return self.batch * self.accumulate

    @property
    def pairs_a_step(self) -> int:
        return self.dpo_batch * self.dpo_accumulate

    def warmup_steps(self, steps: int) -> int:
        """As `ftlib.finetune` rounds it."""
        return round(self.warmup * steps)


TINY = Common()
POCKET = Common(
    steps=4,
    batch=2,
    rate=1e-3,
    warmup=0.25,
    dpo_steps=3,
    dpo_batch=2,
    dpo_rate=2e-4,
    test_rows=8,
    test_pairs=8,
)
LARGE = Common(steps=10, batch=4, rate=2e-4, dpo_batch=2, dpo_rate=5e-6)


def common_of(profile: Profile) -> Common:
    """The runs of a profile; those of the Hub's models are where a trial begins, and untested."""
    return {"tiny": TINY, "pocket": POCKET}.get(profile.name, LARGE)
