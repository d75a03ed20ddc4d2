"""The tools that `benchmarks.peers_edits` compares, and the networks that they edit."""

from __future__ import annotations

from benchmarks.peers.pruners import FasterAI, TorchPruning
from benchmarks.peers.revacnn import ReVACNN
from benchmarks.peers.tool import Tool
from benchmarks.peers.weightslab import WeightsLab

__all__ = ["TOOLS", "FasterAI", "ReVACNN", "Tool", "TorchPruning", "WeightsLab"]

TOOLS: list[type[Tool]] = [ReVACNN, TorchPruning, FasterAI, WeightsLab]
