"""The claims of lab E6, with what to conclude in each case."""

from __future__ import annotations

SFT: tuple = ()
DPO: tuple = ()
