"""The peak meter."""
import sys

import pytest
import torch

from ftlib.memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
MB = 1_000_000


def test_the_peak_is_seen_after_it_was_freed():
    with PeakMemory() as peak:
        block = torch.ones(30 * MB)
        del block
    assert 118 * MB < peak.bytes < 140 * MB


def test_an_earlier_peak_does_not_count():
    block = torch.ones(30 * MB)
    del block
    with PeakMemory() as peak:
        small = torch.ones(5 * MB)
    assert small.numel() and peak.bytes < 60 * MB


def test_no_proc_means_none(monkeypatch, tmp_path):
    from ftlib import memory
    monkeypatch.setattr(memory, "CLEAR", tmp_path / "nowhere" / "clear_refs")
    with PeakMemory() as peak:
        pass
    assert peak.bytes is None
