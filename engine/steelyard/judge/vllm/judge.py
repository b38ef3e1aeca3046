"""The judge on vLLM: the only module that imports it, and only when an engine is started."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from typing_extensions import override

from steelyard.core.batches import PromptBatch, ReadBatch, Workload
from steelyard.core.judges import Answer, JudgeCard
from steelyard.core.work import CacheShape, EngineReport
from steelyard.errors import EngineFailed, JudgeUnavailable, UsageError, escape
from steelyard.judge.base import INSTALL, EngineClock, Judge, JudgeSpec
from steelyard.judge.model.files import resolve_model, weights_digest
from steelyard.judge.model.heads import kind_of
from steelyard.judge.model.tokenizer import HFEncoder
from steelyard.judge.readout import TextReader
from steelyard.judge.vllm import settings as choose
from steelyard.judge.vllm.failures import VERBOSE, describe, not_importable, not_started
from steelyard.judge.vllm.inputs import Sampling
from steelyard.judge.vllm.overrides import parse_overrides, require_known
from steelyard.judge.vllm.process import (
    OutputLog,
    engine_surroundings,
    refuse_rerun,
    settle_llvmlite,
    uncompiled,
)
from steelyard.judge.vllm.requests import (
    EngineError,
    RequestQueue,
    cache_shape,
    iter_prompts,
    read_batch,
)
from steelyard.judge.vllm.watch import EngineWatch
from steelyard.store.folder import Folder
from steelyard.store.images import ImageStore

MAX_LABEL_TOKENS = 128  # vLLM's limit on logprob_token_ids


class VllmJudge(Judge):
    """A model folder or a model of the hub, read by a vLLM engine.

    To find and check the model's files takes seconds, and needs no GPU and no vLLM.

    Raises:
        JudgeUnavailable: a file is missing or damaged.
        UsageError: an engine setting may not be overridden, or the device does not have the dtype.
    """

    def __init__(self, spec: JudgeSpec) -> None:
        refuse_rerun()
        self._spec = spec
        self._overrides = parse_overrides(spec.engine)  # first: they may come from anywhere
        self._files = files = resolve_model(spec.model, spec.revision, remote=spec.remote)
        self.kind = kind_of(files)
        self._device = choose.installed_device()
        self._dtype = choose.choose_dtype(files, self._device, self._overrides.get("dtype", "auto"))
        self.encoder = HFEncoder(files.folder)
        self.images = files.images
        self.clock = EngineClock()
        limit = self._overrides.get("max_model_len") or files.context_length
        self.context_length = min(files.context_length, limit)
        self.card = JudgeCard(
            name=spec.name,
            model=spec.model,
            revision=files.revision,
            weights=weights_digest(files.folder),
            tokenizer=self.encoder.digest,
            dtype=self._dtype,
            quantization=files.quantization,
            extra=choose.fingerprinted(spec.engine),
        )
        self._log: OutputLog | None = None
        self._spawned = False
        self._watch: EngineWatch | None = None
        self._vllm: Any = None  # the module, once it is imported
        self._engine: Any = None
        self._answer: Answer | None = None
        self._images: ImageStore | None = None

    @override
    def start(self, workload: Workload, answer: Answer) -> EngineReport:
        """Load the engine: on a CPU in this process, on a GPU in a separate one.

        Raises:
            UsageError: an engine setting is unknown, or the labels have more forms than vLLM reads.
            JudgeUnavailable: vLLM, a device, memory or a model class is missing.
        """
        if (forms := len(answer.labels.token_ids)) > MAX_LABEL_TOKENS:
            raise UsageError(
                f"the labels have {forms} single-token forms together",
                remedy=f"choose fewer labels: vLLM reads at most {MAX_LABEL_TOKENS} tokens at once",
            )
        self.close()
        self._answer = answer
        folder = workload.image_folder
        self._images = None if folder is None else ImageStore(Folder(Path(folder)))
        try:
            arguments = self._build(workload)
        except OSError as error:
            self.close()
            raise JudgeUnavailable(
                f"the engine cannot be started: {escape(error)}",
                place=tempfile.gettempdir(),
                effect="nothing was read",
                remedy="free space for temporary files, or raise `ulimit -n`; then run it again",
            ) from error
        return EngineReport(
            settings={k: v for k, v in arguments.items() if k != "worker_extension_cls"},
            context_length=arguments["max_model_len"],
            versions={"vllm": str(self._vllm.__version__)},
            cache=cache_shape(self._engine.vllm_config),
        )

    def _build(self, workload: Workload) -> dict[str, Any]:
        """Build the engine, and return its arguments."""
        self._log = log = OutputLog()
        owner = dataclasses.replace(self.owner, warn=partial(log.show, self.owner.warn))
        self._watch = watch = EngineWatch(self.card.name, owner)
        with engine_surroundings(log, spawn=self._device == "gpu") as spawned:
            self._spawned = spawned
            try:
                with watch.loading(separate=spawned):
                    self._vllm = _import_vllm(self._device)
                    from vllm.engine.arg_utils import EngineArgs
                    from vllm.v1.engine import utils
                    from vllm.v1.engine.llm_engine import LLMEngine

                    # Ctrl-C is noticed between two looks at the new process, 10 s apart.
                    utils.STARTUP_POLL_PERIOD_MS = 500
                    arguments = self._arguments(workload)
                    settle_llvmlite()
                    self._engine = LLMEngine.from_engine_args(EngineArgs(**arguments))
            except Exception as error:
                refusal = watch.failure or not_started(error, self._logged(), self._files.folder)
                self.close()
                _free_distributed()  # a half-built engine leaves it, too
                raise refusal from (None if refusal is error else error)
        with uncompiled(spawned):  # imports what it needs now, not at the first step
            pass
        watch.reading(self._engine.engine_core if spawned else None)
        return arguments

    @override
    def likely_cache(self, workload: Workload) -> CacheShape | None:
        """Predict the engine's prefix cache; on a GPU the size of the pool is a guess."""
        chosen = self._chosen(workload) | self._overrides
        choose.check_cache(chosen, self._device)
        return choose.likely_cache(self._files, self._dtype, chosen, self._device)

    def _chosen(self, workload: Workload) -> dict[str, Any]:
        memory = choose.free_memory()
        return choose.choose_settings(self._files, self._dtype, self._device, memory, workload)

    def _arguments(self, workload: Workload) -> dict[str, Any]:
        from vllm.engine.arg_utils import EngineArgs

        known = {field.name for field in dataclasses.fields(EngineArgs)}
        require_known(self._overrides, known)
        chosen = self._chosen(workload)
        if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            chosen.pop("kv_cache_memory_bytes", None)
        fixed = {
            "model": str(self._files.folder),
            "dtype": self._dtype,
            "max_model_len": min(chosen["max_model_len"], self.context_length),
            "skip_tokenizer_init": True,
            "trust_remote_code": False,
        }
        if self.images is not None:
            limits = {**dict.fromkeys(("video", "audio"), 0), "image": workload.images}
            fixed |= {"limit_mm_per_prompt": limits, "skip_tokenizer_init": not workload.images}
        if self._spawned:
            fixed["worker_extension_cls"] = "steelyard.judge.vllm.worker.OwnedWorker"
        arguments = chosen | self._overrides | fixed
        choose.check_cache(arguments, self._device)
        return arguments

    @override
    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        """Feed prompts and yield the reads of each engine step.

        The engine holds twice as many requests as fit into a step.

        Raises:
            EngineFailed: vLLM raised or hangs; the engine is gone, `start` makes a new one.
        """
        answer = self._answer
        watch = self._watch
        if self._engine is None or answer is None or watch is None:
            raise EngineFailed("the judge was not started", remedy="report this as a bug")

        queue = RequestQueue(
            self._engine,
            # Two seeded prompts in a step end vLLM 0.32's engine on a CPU.
            Sampling(self._vllm.SamplingParams, answer, seeded=self._device == "gpu"),
            answer,
            TextReader(answer, self.encoder),
            vocabulary=self._files.vocabulary,
            clock=self.clock,
            separate_process=self._spawned,
            images=self._images,
        )
        try:
            prompts = iter_prompts(batches)
            while True:
                more = queue.fill(prompts)
                if queue.unfinished:
                    with uncompiled(self._spawned), watch.step():
                        queue.step()
                if queue.finished:
                    finished, queue.finished = queue.finished, []
                    yield read_batch(finished, answer)
                if not more and not queue.unfinished:
                    return
        except EngineError as error:
            raise self._failed(error) from error.__cause__
        finally:
            queue.abort()

    def _failed(self, error: EngineError) -> EngineFailed:
        cause = self._logged() or describe(error.__cause__ or error)
        self.close()
        if self._watch is not None and self._watch.failure is not None:
            return self._watch.failure
        return EngineFailed(
            f"the engine stopped: {escape(cause, 300)}",
            place=self.card.name,
            effect="prompts in flight were not read; they will be sent again",
            remedy=f"run the same command again to resume; {VERBOSE}",
        )

    def _logged(self) -> str | None:
        """Return the cause in the log of the engine's process: the exception here hides it."""
        return self._log.cause() if self._spawned and self._log is not None else None

    @override
    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                engine.engine_core.shutdown()
            del engine
            _free_distributed()
        log, self._log = self._log, None
        if log is not None:
            log.close()


def _import_vllm(device: choose.Device) -> Any:
    try:
        import vllm
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        cause = f"the package {error.name} is missing"
        raise JudgeUnavailable(cause, remedy=INSTALL) from error
    except Exception as error:
        raise not_importable(error) from error
    platform = "cpu" if current_platform.is_cpu() else current_platform.device_type
    if not platform:
        raise JudgeUnavailable(
            "vLLM finds no GPU",
            remedy="check nvidia-smi and CUDA_VISIBLE_DEVICES; without a GPU: "
            "pip uninstall vllm, then pip install 'steelyard[cpu]'",
        )
    if (platform == "cpu") != (device == "cpu"):
        raise JudgeUnavailable(
            f"the installed vLLM is for {device.upper()}s, but it runs on {platform}",
            remedy=f"install only one of the two vLLM packages: {INSTALL}",
        )
    return vllm


def _free_distributed() -> None:
    """Free what an engine in this process leaves: a second engine could not start with it."""
    with contextlib.suppress(Exception):
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    gc.collect()
