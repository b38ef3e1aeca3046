"""A tiny untrained vision-language judge (Idefics3), whose processor runs without torchvision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tokenizers import AddedToken

from support import tiny

SPECIAL = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
# Contents are lists of parts only, and the first part decides how the turn opens, as in SmolVLM.
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}"
    "{% if m['content'][0]['type'] == 'image' %}:{% else %}: {% endif %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}"
)
SIDE, PATCH, SCALE = 56, 14, 2
IMAGE_TOKENS = (SIDE // PATCH // SCALE) ** 2


def write_model(folder: Path, seed: int = 0) -> Path:
    """A whole judge: tokenizer, processor, two vision and two text layers in float32."""
    import torch
    from transformers import (
        Idefics3Config,
        Idefics3ForConditionalGeneration,
        Idefics3Processor,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    tokenizer = tiny.byte_level()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>"
    )
    size = {"longest_edge": SIDE}
    images = Idefics3ImageProcessorPil(size=size, max_image_size=size, do_image_splitting=False)
    Idefics3Processor(
        images, fast, image_seq_len=IMAGE_TOKENS, chat_template=TEMPLATE
    ).save_pretrained(folder)
    layers = {
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "initializer_range": 0.2,  # far from uniform: a mistake shows
    }
    vocabulary = -(-tokenizer.get_vocab_size() // 8) * 8
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=256,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=0,
        bos_token_id=None,
        pad_token_id=0,
        **layers,
    )
    vision = {"hidden_size": 64, "intermediate_size": 128, "image_size": SIDE, "patch_size": PATCH}
    config = Idefics3Config(
        text_config=text,
        vision_config={**vision, **layers},
        image_token_id=tokenizer.token_to_id("<image>"),
        scale_factor=SCALE,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    network = Idefics3ForConditionalGeneration(config).to(torch.float32)
    network.save_pretrained(folder)
    return folder


def reference(folder: Path, text: str, images: list) -> np.ndarray:
    """Log-probabilities after a prompt, by transformers: its processor, its model, float32."""
    import torch
    from transformers import AutoProcessor, Idefics3ForConditionalGeneration

    processor = AutoProcessor.from_pretrained(folder)
    network = Idefics3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = processor(text=text, images=images or None, return_tensors="pt")
    with torch.inference_mode():
        logits = network(**inputs).logits[0, -1].double()
    return torch.log_softmax(logits, dim=-1).numpy()
