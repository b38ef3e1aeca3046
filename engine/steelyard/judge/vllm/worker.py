"""Loaded by vLLM in each of its worker processes (`worker_extension_cls`), before any model.

The import itself has the effect: vLLM has no hook that runs earlier in those processes.
"""

from __future__ import annotations

from steelyard.judge.vllm.process import end_with_owner

end_with_owner()


class OwnedWorker:
    """Adds nothing to the worker: no attribute can clash with vLLM's."""
