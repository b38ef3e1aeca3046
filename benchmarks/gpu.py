"""Steelyard and the naive script on a GPU, with a small judge and with one of the shape of an 8B.

    gpu.py                       the embedded judge, then a model of random weights made here
    gpu.py --judge FOLDER        FOLDER's tokenizer and weights instead of the embedded judge's

The large model has Llama 3 8B's shape (32 layers of 4,096, bfloat16) and the small judge's
tokenizer: its verdicts are worthless, but its cost is that of an 8B judge. MFU counts 2 operations
per weight and computed token, without embedding and head, and those of attention, relative to
--peak-tflops. With --smoke the judges are tiny and a CPU is enough; its MFU has no meaning.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import workloads
from harness.common import report
from harness.contest import Bench, bench, compete, options, texts
from steelyard.judge import open_judge
from steelyard.judge.base import JudgeSpec
from steelyard.judge.vllm.settings import installed_device

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
SMOKE_SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def large_judge(folder: Path, small: Path, shape: dict[str, int]) -> Path:
    """Make a model folder with random weights of this shape and another judge's tokenizer."""
    import torch
    from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM

    config = AutoConfig.from_pretrained(small)
    made = LlamaConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=8192,
        eos_token_id=config.eos_token_id,
        bos_token_id=config.bos_token_id,
        tie_word_embeddings=False,
        **shape,
    )
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        network = LlamaForCausalLM(made).to(torch.bfloat16)
    network.save_pretrained(folder, max_shard_size="4GB")
    del network
    if device == "cuda":
        torch.cuda.empty_cache()
    for path in small.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder / path.name)
    return folder


def operations(folder: Path, mean_length: float) -> float:
    """Count operations per computed token: those of weights, and attention over the prompt."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    kv = config.get("num_key_value_heads", heads) * head
    weights = layers * (
        2 * hidden * heads * head + 2 * hidden * kv + 3 * hidden * config["intermediate_size"]
    )
    return 2.0 * weights + 4.0 * layers * heads * head * mean_length / 2


def measure(place: Bench, name: str, rows: list[workloads.Row], peak: float) -> list[Any]:
    """Run Steelyard and the naive script with one judge, shuffled rows, and a pool of 2%."""
    folder = Path(open_judge(JudgeSpec("judge", place.judge)).card.model)
    lines = compete(place, rows, name, ("shuffled", "small"))
    for line in lines:
        prompts = 2 * line["verdicts"]
        rate = line["computed"] / line["seconds"]
        line["prompts_a_second"] = prompts / line["seconds"]
        line["computed_a_second"] = rate
        line["mfu"] = rate * operations(folder, line["logical"] / prompts) / (peak * 1e12)
    return lines


def main() -> int:
    made = options(__doc__)
    made.add_argument(
        "--instructions", type=int, default=150, help="instructions, with 28 pairs each"
    )
    made.add_argument(
        "--large-instructions", type=int, default=30, help="instructions for the large judge"
    )
    made.add_argument(
        "--peak-tflops", type=float, default=989.0, help="of dense bfloat16 [H100, H200]"
    )
    chosen = made.parse_args()
    if chosen.smoke:
        chosen.instructions = chosen.large_instructions = 1
    elif installed_device() == "cpu":
        print("gpu: the installed vLLM is for CPUs: nothing was measured", file=sys.stderr)
        return 0
    found = texts(chosen, None if chosen.smoke else workloads.MEDIUM)
    k = 3 if chosen.smoke else 8
    lines = []
    with bench(chosen) as place:
        small = Path(open_judge(JudgeSpec("judge", place.judge)).card.model)
        rows = workloads.tournament(found, chosen.instructions, k, chosen.seed)
        lines += measure(place, f"k={k}, small judge", rows, chosen.peak_tflops)
        shape = SMOKE_SHAPE if chosen.smoke else SHAPE
        large = replace(place, judge=str(large_judge(place.folder / "large", small, shape)))
        rows = workloads.tournament(found, chosen.large_instructions, k, chosen.seed)
        lines += measure(large, f"k={k}, 8B shape", rows, chosen.peak_tflops)
    report("gpu", lines, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
