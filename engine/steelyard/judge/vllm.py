"""The judge on vLLM: the only file that imports it, and only once an engine is started."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from steelyard.errors import EngineFailed, JudgeUnavailable, SteelyardError, UsageError, escape
from steelyard.judge import settings as choose
from steelyard.judge.base import Judge, JudgeSpec
from steelyard.judge.process import OWNER_VARIABLE, OutputLog, interrupts_held
from steelyard.judge.tokenizer import HFEncoder
from steelyard.judge.weights import ModelFiles, resolve_model, weights_digest
from steelyard.reads import is_read, merge_variants
from steelyard.records import (
    STATUS_ERROR,
    STATUS_OK,
    EngineReport,
    Float64,
    JudgeCard,
    LabelSet,
    PromptBatch,
    ReadBatch,
    Workload,
)

_SPAWNED = "VLLM_ENABLE_V1_MULTIPROCESSING"
_INSTALL = "pip install 'steelyard[gpu]', or 'steelyard[cpu]' on a machine without a GPU"
_VERBOSE = "VLLM_LOGGING_LEVEL=INFO shows vLLM's own report"
_END: Any = object()
MAX_LABEL_TOKENS = 128  # vLLM's limit on logprob_token_ids


@dataclasses.dataclass(frozen=True, slots=True)
class _Finished:
    """One finished prompt: where it stands in its batch, and what came of it."""

    batch: PromptBatch
    index: int
    logprobs: list[float] | None = None  # of the label variants, in LabelSet.token_ids' order
    argmax_outside: bool = False
    cached: int = 0
    error: str | None = None


class VllmJudge(Judge):
    """A model folder or hub model read by a vLLM engine; see `Judge`."""

    def __init__(self, spec: JudgeSpec, files: ModelFiles, device: choose.Device) -> None:
        self._spec = spec
        self._files = files
        self._device: choose.Device = device
        self._dtype = choose.choose_dtype(files, device, spec.engine.get("dtype", "auto"))
        self.encoder = HFEncoder(files.folder)
        limit = choose.parse_override(spec.engine.get("max_model_len", 0))
        self.context_length = min(files.context_length, limit or files.context_length)
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
        self._engine: Any = None
        self._labels: LabelSet | None = None

    @classmethod
    def open(cls, spec: JudgeSpec) -> VllmJudge:
        """Find and check the model's files; takes seconds, needs no GPU and no vLLM.

        Raises:
            JudgeUnavailable: see `resolve_model` and `HFEncoder`.
            UsageError: a dtype that the device does not have.
        """
        files = resolve_model(spec.model, spec.revision)
        return cls(spec, files, choose.installed_device())

    def start(self, workload: Workload, labels: LabelSet) -> EngineReport:
        """Load the engine in this process on a CPU, in one of its own on a GPU; see `Judge`.

        Raises:
            UsageError: an unknown engine setting, or more label variants than vLLM reads.
            JudgeUnavailable: vLLM, a device, memory or a model class is missing.
        """
        if len(labels.token_ids) > MAX_LABEL_TOKENS:
            raise UsageError(
                f"the labels have {len(labels.token_ids)} single-token forms together",
                remedy=f"choose fewer labels: vLLM reads at most {MAX_LABEL_TOKENS} at once",
            )
        self.close()
        self._labels = labels
        log = OutputLog()
        self._log = log
        with _prepared_environment(self._device, log), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vLLM's and torch's own
            vllm = _import_vllm(self._device)
            arguments = self._arguments(workload)
            try:
                self._engine = _build_engine(arguments)
            except SteelyardError:
                raise
            except Exception as error:
                self.close(keep_log=True)
                raise _not_started(error, log, self._files) from error
        return EngineReport(
            settings={k: v for k, v in arguments.items() if k != "worker_extension_cls"},
            context_length=arguments["max_model_len"],
            versions={"vllm": str(vllm.__version__)},
        )

    def _arguments(self, workload: Workload) -> dict[str, Any]:
        from vllm.engine.arg_utils import EngineArgs

        known = {field.name for field in dataclasses.fields(EngineArgs)}
        choose.check_overrides(self._spec.engine, known)
        machine = choose.Machine(self._device, choose.free_memory())
        chosen = choose.choose_settings(self._files, self._dtype, machine, workload)
        if os.environ.get("VLLM_CPU_KVCACHE_SPACE"):
            chosen.pop("kv_cache_memory_bytes", None)
        overrides = {k: choose.parse_override(v) for k, v in self._spec.engine.items()}
        fixed = {
            "model": str(self._files.folder),
            "dtype": self._dtype,
            "max_model_len": min(chosen["max_model_len"], self.context_length),
            "skip_tokenizer_init": True,
            "trust_remote_code": False,
        }
        if _in_own_process():
            fixed["worker_extension_cls"] = "steelyard.judge.worker.OwnedWorker"
        return chosen | overrides | fixed

    def read(self, batches: Iterator[PromptBatch]) -> Iterator[ReadBatch]:
        """Feed prompts and yield the reads of each engine step; see `Judge`.

        Twice as many prompts as a step can hold are kept waiting in the engine.

        Raises:
            EngineFailed: vLLM raised; the engine is gone, `start` makes a new one.
        """
        if self._engine is None or self._labels is None:
            raise EngineFailed("the judge was not started", remedy="report this as a bug")
        feed = _Feed(self._engine, self._labels, self._files.vocabulary)
        try:
            prompts = _prompts(batches)
            while True:
                more = feed.top_up(prompts)
                if feed.waiting:
                    feed.step()
                if feed.finished:
                    yield self._read_batch(feed.take())
                if not more and not feed.waiting:
                    return
        except _EngineError as error:
            raise self._failed(error) from error.__cause__
        finally:
            feed.drop_waiting()

    def _read_batch(self, finished: list[_Finished]) -> ReadBatch:
        assert self._labels is not None
        labels = self._labels
        variants = len(labels.token_ids)
        empty = [np.nan] * variants
        logprobs: Float64 = np.array([f.logprobs or empty for f in finished], dtype=np.float64)
        merged, mass = merge_variants(logprobs.reshape(len(finished), variants), labels.starts)
        read = is_read(mass)
        errors = [
            f.error or (None if ok else "the log-probabilities are not finite")
            for f, ok in zip(finished, read, strict=True)
        ]
        lengths = [int(f.batch.offsets[f.index + 1] - f.batch.offsets[f.index]) for f in finished]
        return ReadBatch(
            keys=[f.batch.keys[f.index] for f in finished],
            buckets=np.array([f.batch.bucket for f in finished], dtype=np.int32),
            status=[STATUS_OK if error is None else STATUS_ERROR for error in errors],
            label_logprobs=merged,
            label_mass=mass,
            argmax_outside=np.array([f.argmax_outside for f in finished], dtype=np.bool_),
            truncated=np.array([f.batch.truncated[f.index] for f in finished], dtype=np.bool_),
            prompt_tokens=np.array(lengths, dtype=np.int32),
            cached_tokens=np.array([f.cached for f in finished], dtype=np.int32),
            errors=errors,
        )

    def _failed(self, error: _EngineError) -> EngineFailed:
        cause = _cause(error.__cause__ or error, self._log)
        self.close()
        return EngineFailed(
            f"the engine stopped: {escape(cause, 300)}",
            place=self.card.name,
            effect="reads in flight are lost and will be asked for again",
            remedy=f"run the same command again to resume; {_VERBOSE}",
        )

    def close(self, *, keep_log: bool = False) -> None:
        """Free engine, memory and processes; see `Judge`."""
        engine, self._engine = self._engine, None
        if engine is not None:
            with contextlib.suppress(Exception):
                engine.engine_core.shutdown()
            del engine
            _free_distributed()
        if self._log is not None and not keep_log:
            self._log.close()
            self._log = None


class _EngineError(Exception):
    """Carries what vLLM raised, as its cause, out of `_Feed`."""


class _Feed:
    """The engine's queue: puts prompts in, steps, and takes results out."""

    def __init__(self, engine: Any, labels: LabelSet, vocabulary: int) -> None:  # noqa: ANN401
        self._engine = engine
        self._wanted = labels.token_ids
        self._vocabulary = vocabulary
        config = engine.vllm_config
        self._longest = config.model_config.max_model_len - 1
        self._target = 2 * config.scheduler_config.max_num_seqs
        self._sampling = _sampling(self._wanted)
        self.waiting: dict[str, tuple[PromptBatch, int]] = {}
        self.finished: list[_Finished] = []
        self._count = 0

    def top_up(self, prompts: Iterator[tuple[PromptBatch, int] | None]) -> bool:
        """Put prompts in until enough are waiting; False: there are no more."""
        while len(self.waiting) < self._target:
            item = next(prompts, _END)
            if item is _END:
                return False
            if item is None:  # nothing is ready; the engine goes on with what it has
                return True
            self._put(*item)
        return True

    def _put(self, batch: PromptBatch, index: int) -> None:
        ids = batch.ids(index)
        problem = self._problem(ids)
        if problem is None:
            self._count += 1
            name = str(self._count)
            try:
                self._engine.add_request(
                    name, {"type": "token", "prompt_token_ids": ids}, self._sampling
                )
            except ValueError as error:
                problem = f"refused by the engine: {escape(error, 200)}"
            except Exception as error:
                if type(error).__name__ != "VLLMValidationError":
                    raise _EngineError from error
                problem = f"refused by the engine: {escape(error, 200)}"
            else:
                self.waiting[name] = batch, index
        if problem is not None:
            self.finished.append(_Finished(batch, index, error=problem))

    def _problem(self, ids: list[int]) -> str | None:
        """Why a prompt cannot be given to the engine. A bad id would end it, not the prompt."""
        if not ids:
            return "the prompt is empty"
        if len(ids) > self._longest:
            return f"the prompt has {len(ids)} tokens, the engine holds {self._longest}"
        if self._vocabulary and not 0 <= min(ids) <= max(ids) < self._vocabulary:
            return f"a token id is outside the vocabulary of {self._vocabulary}"
        return None

    def step(self) -> None:
        """One engine step; its results are in `finished`."""
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise _EngineError from error
        for output in outputs:
            if output.finished:
                batch, index = self.waiting.pop(output.request_id)
                self.finished.append(self._result(batch, index, output))

    def _result(self, batch: PromptBatch, index: int, output: Any) -> _Finished:  # noqa: ANN401
        if not output.outputs or not output.outputs[0].logprobs:
            return _Finished(batch, index, error="the engine gave the prompt up without a read")
        flat = output.outputs[0].logprobs
        # The first entry is the sampled token, then come the ids asked for, in their order.
        sampled, *ids = flat.token_ids
        if ids != self._wanted:
            return _Finished(batch, index, error="the engine read other tokens than the labels")
        return _Finished(
            batch,
            index,
            logprobs=flat.logprobs[1:],
            argmax_outside=sampled not in self._wanted,
            cached=output.num_cached_tokens or 0,
        )

    def take(self) -> list[_Finished]:
        """The finished prompts, once."""
        finished, self.finished = self.finished, []
        return finished

    def drop_waiting(self) -> None:
        """Take back what is still in the engine, when a reader stops early."""
        if self.waiting:
            with contextlib.suppress(Exception):
                self._engine.abort_request(list(self.waiting))


def _prompts(batches: Iterable[PromptBatch]) -> Iterator[tuple[PromptBatch, int] | None]:
    """Prompts one by one; None for an empty batch."""
    for batch in batches:
        if not len(batch):
            yield None
        for index in range(len(batch)):
            yield batch, index


def _sampling(ids: list[int]) -> Any:  # noqa: ANN401
    from vllm import SamplingParams

    return SamplingParams(
        max_tokens=1,
        temperature=0.0,
        detokenize=False,
        flat_logprobs=True,
        logprob_token_ids=ids,
    )


def _in_own_process() -> bool:
    return os.environ.get(_SPAWNED) == "1"


@contextlib.contextmanager
def _prepared_environment(device: choose.Device, log: OutputLog) -> Iterator[None]:
    """Environment, output and signals as an engine should find them when it is built.

    What the user has set stays. Variables that vLLM itself changes for its children are put back.
    """
    asked = "VLLM_LOGGING_LEVEL" in os.environ
    defaults = {
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # threads run here: a fork could hang
        "TOKENIZERS_PARALLELISM": "true",
        _SPAWNED: "0" if device == "cpu" else "1",
    }
    preload = os.environ.get("LD_PRELOAD")
    for key, value in defaults.items():
        os.environ.setdefault(key, value)
    os.environ[OWNER_VARIABLE] = str(os.getpid())
    try:
        with interrupts_held(), log.capturing(stderr=not asked):
            yield
    finally:
        os.environ.pop("LD_PRELOAD", None)
        if preload is not None:
            os.environ["LD_PRELOAD"] = preload
        if not asked:  # what it would log here, it raises as well
            logging.getLogger("vllm").setLevel(logging.CRITICAL)


def _import_vllm(device: choose.Device) -> Any:  # noqa: ANN401
    try:
        import vllm
        from vllm.platforms import current_platform
    except ModuleNotFoundError as error:
        cause = f"the package {error.name} is missing"
        raise JudgeUnavailable(cause, remedy=_INSTALL) from error
    except Exception as error:
        raise _not_importable(error) from error
    found = "cpu" if current_platform.is_cpu() else current_platform.device_type
    if not found:
        raise JudgeUnavailable(
            "vLLM finds no GPU",
            remedy="check nvidia-smi and CUDA_VISIBLE_DEVICES; without a GPU: "
            "pip uninstall vllm, then pip install 'steelyard[cpu]'",
        )
    if (found == "cpu") != (device == "cpu"):
        raise JudgeUnavailable(
            f"the installed vLLM is for {device.upper()}s but runs on {found}",
            remedy=f"install one of both vLLM packages only: {_INSTALL}",
        )
    return vllm


def _not_importable(error: Exception) -> JudgeUnavailable:
    text = str(error)
    if "torchvision" in text or "operator torchvision" in str(error.__cause__):
        return JudgeUnavailable(
            "the installed torchvision does not fit the installed torch",
            remedy="pip uninstall torchvision torchaudio torchcodec; nothing here needs them",
        )
    return JudgeUnavailable(f"vLLM cannot be imported: {escape(text, 300)}", remedy=_INSTALL)


def _build_engine(arguments: dict[str, Any]) -> Any:  # noqa: ANN401
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    return LLMEngine.from_engine_args(EngineArgs(**arguments))


def _free_distributed() -> None:
    """What an engine in this process leaves behind; a second one could not start beside it."""
    with contextlib.suppress(Exception):
        from vllm.distributed import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()
    gc.collect()


def _cause(error: BaseException, log: OutputLog | None) -> str:
    """The cause in one line: from the engine process's log, or the exception itself."""
    logged = log.cause() if log is not None and _in_own_process() else None
    if logged:
        return logged
    listed = getattr(error, "errors", None)  # pydantic
    if callable(listed):
        with contextlib.suppress(Exception):
            return str(listed()[0]["msg"])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _not_started(error: Exception, log: OutputLog, files: ModelFiles) -> JudgeUnavailable:
    cause = _cause(error, log)
    remedy = _VERBOSE
    if "memory" in cause.lower():
        remedy = (
            "free memory, or lower --engine gpu_memory_utilization (GPU) or "
            f"kv_cache_memory_bytes (CPU); {_VERBOSE}"
        )
    elif "architecture" in cause.lower():
        remedy = f"choose a judge that this vLLM supports, or upgrade vLLM; {_VERBOSE}"
    return JudgeUnavailable(
        f"vLLM cannot start: {escape(cause, 300)}",
        place=str(files.folder),
        effect="nothing was read",
        remedy=remedy,
    )
