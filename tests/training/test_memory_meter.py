"""Measured memory: the peak meter and the timeline."""

import pytest
import torch

from ftlib.training.memory_meter import memory_timeline, peak_bytes

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU's allocator rounds")


def test_it_counts_live_storages_to_the_byte():
    """4 MB and 8 MB alive together, a view that costs nothing, then 4 MB after the others are gone:
    12 MB.
    """

    def step():
        a = torch.zeros(1_000_000)
        b = a.repeat(2)
        view = b[:10]
        del a, b, view
        torch.zeros(1_000_000)

    assert peak_bytes(step) == 12_000_000


def test_it_sees_what_backward_needs():
    """exp keeps its output for backward: with the input's gradient 3 x 4 MB at least are alive."""
    x = torch.zeros(1_000_000, requires_grad=True)
    assert 12_000_000 <= peak_bytes(lambda: x.exp().exp().sum().backward()) <= 16_100_000


def test_what_was_there_before_does_not_count():
    block = torch.ones(1_000_000)
    assert peak_bytes(lambda: block.add_(1)) == 0 and peak_bytes(lambda: block + 1) == 4_000_000


def test_an_error_passes_through():
    with pytest.raises(ZeroDivisionError):
        peak_bytes(lambda: 1 / 0)


def test_the_timeline_rises_through_the_blocks_and_falls_back(model):
    """Forward: every block keeps something for backward. After the backward pass only the gradients
    are left.
    """
    model.train().requires_grad_(True)
    ids = torch.arange(24).view(2, 12)
    course = memory_timeline(model, lambda: model(input_ids=ids, labels=ids).loss.backward())
    blocks = [b for name, b in course if name.startswith("forward model.layers.")]
    assert (
        len(blocks) == model.config.num_hidden_layers and blocks == sorted(blocks) and blocks[0] > 0
    )
    names = [name for name, _ in course]
    assert (
        names.index("forward lm_head")
        < names.index("backward lm_head")
        < names.index("backward model.layers.0")
    )
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
