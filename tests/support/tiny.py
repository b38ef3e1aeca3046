"""Tiny random judges, built in a test: a trained tokenizer and an untrained two-layer Llama."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from steelyard.core.batches import PromptBatch, TokenRows
from steelyard.core.judges import Answer, LabelSet, LabelVariant

CONTROL = ["<|end|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Which response is better, A or B? The answer is A. The answer is B. A B C D",
    "the quick brown fox jumps over the lazy dog; im start im end, 0123456789 <|>[]{}()",
    "Ein Gruß aus Köln, déjà vu, naïve café, 你好世界, привет, 🙂",
] * 20


def byte_level(size: int = 600, words: Sequence[str] = ()) -> Tokenizer:
    """A byte-level BPE tokenizer like those of GPT-2, Llama 3 and Qwen; `words` are tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(text, special=True) for text in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*CORPUS, *(" ".join(words) for _ in range(500))], trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """A sentencepiece-like Unigram tokenizer whose vocabulary holds its control tokens."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<|im_start|>", -1.0), ("[INST]", -2.0)]
    letters = sorted(set("".join(CORPUS).replace(" ", "▁")))
    words = ["▁the", "▁A", "▁B", "▁answer", "▁is", "er", "▁res", "ponse"]
    pieces += [(piece, -5.0) for piece in words] + [(letter, -8.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.add_special_tokens(["<unk>", "</s>", "<|im_start|>", "[INST]"])
    return tokenizer


def prepending() -> Tokenizer:
    """A BPE tokenizer as converted from Llama 2: byte fallback, a space put before every text."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {name: id_ for id_, name in enumerate(names)}
    for piece in [*sorted(set("abcdefghij▁ABHT")), "▁a", "▁A", "ab", "▁ab", "</s", "<s"]:
        vocab.setdefault(piece, len(vocab))
    merges = [("▁", "a"), ("▁", "A"), ("a", "b"), ("▁a", "b")]
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def ignoring_merges() -> Tokenizer:
    """Byte-level BPE whose vocabulary holds control tokens and that looks whole words up."""
    spec = json.loads(byte_level().to_str())
    spec["model"]["ignore_merges"] = True
    size = len(spec["model"]["vocab"])
    # A control token that is one pre-token, so that a whole-word look-up would find it.
    spec["model"]["vocab"]["assistant"] = size
    spec["added_tokens"].append(
        {
            "id": size,
            "content": "assistant",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    )
    return Tokenizer.from_str(json.dumps(spec))


def write_tokenizer(
    folder: Path, tokenizer: Tokenizer, *, template: str | None = CHATML, **config: object
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    if template is not None:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def write_model(
    folder: Path,
    *,
    seed: int = 0,
    broken: bool = False,
    context: int = 512,
    words: Sequence[str] = (),
    says: Sequence[str] = (),
) -> Path:
    """A whole judge: byte-level tokenizer and float32 weights (NaN where `broken`).

    With `says`, it writes these texts one after the other, and ends: each is one token, and the
    next one depends on the last alone.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_level(600, words)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in says if len(text) > 1])
    write_tokenizer(folder, tokenizer, eos_token="<|end|>")
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=0.2,  # far from uniform: a mistake shows
    )
    torch.manual_seed(seed)
    network = LlamaForCausalLM(config).to(torch.float32)
    if says:
        chain = [tokenizer.token_to_id(text) for text in ("Ċ", *says, "<|end|>")]
        _speak(network, chain)
    if broken:
        with torch.no_grad():
            network.model.norm.weight.fill_(float("nan"))
    network.save_pretrained(folder)
    return folder


def _speak(network, chain: list[int]) -> None:
    """After each token of the chain the next one is by far the likeliest."""
    import torch

    with torch.no_grad():
        for layer in network.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        known = network.model.embed_tokens.weight
        network.lm_head.weight.mul_(0.05)
        for one, following in pairwise(chain):
            state = known[one] / known[one].pow(2).mean().sqrt()
            network.lm_head.weight[following] += 20 * state / len(state)


def hostile_texts(names: list[str], count: int, seed: int = 0) -> list[str]:
    """Control tokens whole, cut, joined, changed in one character, and between other texts."""
    draw = random.Random(seed)
    other = [
        "",
        " ",
        "\n",
        "a",
        "▁",
        "\u200b",
        "\uffff",
        "é",
        "🙂",
        "\x00",
        "A B",
        "\ufffe",
        "\u202e",
    ]
    texts = list(names)
    while len(texts) < count:
        name, friend = draw.choice(names), draw.choice(names)
        cut = draw.randrange(len(name) + 1)
        kind = draw.randrange(6)
        if kind == 0:
            text = name[:cut] + draw.choice(other) + name[cut:]
        elif kind == 1:
            text = draw.choice(other) + name + draw.choice(other) + friend
        elif kind == 2:
            text = name[:cut] + friend + name[cut:]
        elif kind == 3:
            text = name.swapcase() + draw.choice(other) + name
        elif kind == 4:
            text = name[:cut] + chr(draw.randrange(32, 0xD7FF)) + name[cut + 1 :]
        else:
            text = "".join(draw.choice(names)[: draw.randrange(1, 9)] for _ in range(4))
        texts.append(text)
    return texts


def answer_of(encoder, *names: str) -> Answer:
    """The plain read of these labels."""
    return Answer(LabelSet(names, tuple(encoder.label_variants(name) for name in names)))


def answer(*ids: int) -> Answer:
    names = tuple(map(str, ids))
    return Answer(LabelSet(names, tuple((LabelVariant(i, str(i)),) for i in ids)))


def batch(rows: list[list[int]], bucket: int = 0) -> PromptBatch:
    keys = [hashlib.md5(repr((bucket, i, r)).encode()).digest() for i, r in enumerate(rows)]
    return PromptBatch(bucket, keys, TokenRows.of(rows), np.zeros(len(rows), dtype=np.bool_))


def prompts(count: int, vocabulary: int, *, longest: int, seed: int = 0) -> list[list[int]]:
    """Prompts of random ids in prefix order, every three with a common beginning."""
    draw = random.Random(seed)
    rows = []
    while len(rows) < count:
        head = [draw.randrange(3, vocabulary) for _ in range(draw.randrange(1, longest // 2))]
        tails = ([draw.randrange(3, vocabulary) for _ in range(longest // 3)] for _ in range(3))
        rows += [head + tail for tail in tails]
    return sorted(rows[:count])


def reference(folder: Path, rows: list[list[int]], ids: list[int]) -> np.ndarray:
    """Log-probabilities of `ids` after each row: transformers, float32, one by one, no cache."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = network(torch.tensor([row])).logits[0, -1]
            found.append(torch.log_softmax(logits, dim=-1)[ids].numpy())
    return np.array(found, dtype=np.float64)


def by_key(reads) -> dict[bytes, tuple]:
    """All reads by prompt key: status, label log-probabilities, cached tokens, error."""
    found = {}
    for read in reads:
        for i, key in enumerate(read.keys):
            assert key not in found
            row = (read.status[i], read.label_logprobs[i], read.cached_tokens[i], read.errors[i])
            found[key] = row
    return found
