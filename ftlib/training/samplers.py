"""Orders of the rows that depend on seed and epoch alone, so that a resumed run goes on where it
was.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


def generator_of(seed: int, epoch: int) -> torch.Generator:
    """Another stream of random numbers for every seed and epoch."""
    return torch.Generator().manual_seed(1_000_003 * seed + epoch)


class LengthGroupedSampler(Sampler):
    """Rows of like length in one batch. The order depends on seed and epoch alone: Trainer's own
    sampler draws from the global generator, so a run resumed in its second epoch would go on with
    the first epoch's order.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        generator = generator_of(self.seed, self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


class BlockSampler(Sampler):
    """Blocks of `size` consecutive rows in an order of seed and epoch: KTO's mismatched pairs stay
    within their batch.
    """

    def __init__(self, count: int, size: int, seed: int):
        self.count = count
        self.size = size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count

    def __iter__(self):
        generator = generator_of(self.seed, self.epoch)
        blocks = torch.randperm(self.count // self.size, generator=generator)
        for block in blocks.tolist():
            yield from range(block * self.size, (block + 1) * self.size)


class RolloutSampler(Sampler):
    """Each prompt `group_size` times in a row, and each batch of them `epochs` times: the steps
    that learn from one rollout are shown the same prompts. The order depends on seed and epoch.
    """

    def __init__(self, count: int, batch_size: int, group_size: int, epochs: int, seed: int):
        self.count = count
        self.prompts = batch_size // group_size
        self.group_size = group_size
        self.epochs = epochs
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.prompts * self.prompts * self.group_size * self.epochs

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.count, generator=generator_of(self.seed, self.epoch)).tolist()
        for start in range(0, self.count - self.prompts + 1, self.prompts):
            for _ in range(self.epochs):
                for index in order[start : start + self.prompts]:
                    yield from [index] * self.group_size
