"""Small images, and pairs that carry them."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.helpers import pairs_table

Image = pytest.importorskip("PIL.Image")


def picture(seed, size=(6, 5), kind="PNG", mode="RGB"):
    """The bytes of a small file."""
    channels = len(mode)
    raw = np.random.default_rng(seed).integers(0, 256, (*size[::-1], channels), np.uint8)
    out = io.BytesIO()
    Image.fromarray(raw, mode if channels > 3 else None).save(out, kind)
    return out.getvalue()


def table(images, kind=None, **options):
    """Pairs with these images, one entry a pair."""
    column = pa.array(images, kind)
    return pairs_table(len(images), **options).append_column("images", column)


def write(folder, content):
    folder.mkdir(exist_ok=True)
    pq.write_table(content, folder / "pairs.parquet")
    return folder


RED, BLUE, GREEN = picture(1), picture(2, kind="JPEG"), picture(3, kind="WEBP")
