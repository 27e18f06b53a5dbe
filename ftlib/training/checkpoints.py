"""A run's checkpoints: which are whole, and how far each came. Light: a command that only asks does
not load PyTorch.
"""

from __future__ import annotations

from pathlib import Path

COMPLETE = "complete"  # a file in each checkpoint that was written to its end


def steps_of(checkpoint: Path | None) -> int:
    """Optimizer steps that a checkpoint has behind it; 0 for none."""
    if checkpoint is None:
        return 0
    return int(checkpoint.name.rsplit("-", 1)[1])


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    complete = [mark.parent for mark in output_dir.glob(f"checkpoint-*/{COMPLETE}")]
    return max(complete, key=steps_of, default=None)
