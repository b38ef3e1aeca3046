"""Loaded by vLLM in each of its worker processes (`worker_extension_cls`), before any model.

Importing it is the effect: vLLM offers no hook that runs earlier in those processes.
"""

from __future__ import annotations

from steelyard.judge.vllm.process import end_with_owner

end_with_owner()


class OwnedWorker:
    """Adds nothing to the worker: no attribute here can clash with one of vLLM's."""
