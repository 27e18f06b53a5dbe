"""fp32 where there are 16 bits, and never less than what is there."""

import pytest
import torch

from ftlib.core.dtypes import fp32_or_wider, master_like


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_sixteen_bits_are_widened_and_sixty_four_are_kept(given, expected):
    assert fp32_or_wider(given) == expected
    assert master_like(torch.zeros(1, dtype=given))["dtype"] == expected


def test_beside_packed_weights_fp32_is_trained():
    packed = torch.zeros(4, dtype=torch.uint8)
    assert master_like(packed) == {"dtype": torch.float32, "device": packed.device}
