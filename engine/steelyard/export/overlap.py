"""Instructions that resemble others: those of an evaluation, or earlier ones of the dataset."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import xxhash

from steelyard.core.schemas import UInt64

SHINGLE = 3  # words
BANDS = 32
MOST_ROWS = 4  # hashes per band; texts of similarity s share no band with (1 - s^rows)^BANDS
MISSED = 0.01  # greatest share of missed pairs whose similarity is exactly what was asked for
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Return the words of a text in lower case: letters, digits and `_` of any script."""
    return _WORD.findall(text.lower())


def normalize(text: str) -> str:
    """Remove what does not make another instruction: case, punctuation and white space."""
    return " ".join(words(text)) or text.strip()


def ngrams(parts: Sequence[str], length: int) -> UInt64:
    """Hash the runs of `length` words, each once; the whole text where it is shorter."""
    runs = (" ".join(parts[i : i + length]) for i in range(max(1, len(parts) - length + 1)))
    return np.array(
        sorted({xxhash.xxh3_64_intdigest(run.encode()) for run in runs}), dtype=np.uint64
    )


class HeldOutText:
    """Instructions that no training data may hold.

    An instruction is contaminated if it equals one of them up to case, punctuation and white
    space, or shares a run of `ngram` words with one.
    """

    def __init__(self, instructions: Iterable[str], ngram: int) -> None:
        self._ngram = ngram
        self._whole: set[str] = set()
        self._runs: set[int] = set()
        for text in instructions:
            self._whole.add(normalize(text))
            parts = words(text)
            if len(parts) >= ngram:
                self._runs.update(ngrams(parts, ngram).tolist())

    def holds(self, text: str) -> bool:
        """Return whether an instruction is contaminated."""
        parts = words(text)
        return normalize(text) in self._whole or (
            len(parts) >= self._ngram
            and not self._runs.isdisjoint(ngrams(parts, self._ngram).tolist())
        )


class NearDuplicates:
    """Clusters of instructions that are nearly the same, found by MinHash (Broder, 1997).

    Candidates share a band of hashes; their exact Jaccard similarity over runs of SHINGLE words
    decides. Memory grows with the number of clusters, by some 2 kB each.
    """

    def __init__(self, similarity: float) -> None:
        self._similarity = similarity
        fitting = (r for r in range(MOST_ROWS, 1, -1) if (1 - similarity**r) ** BANDS <= MISSED)
        self._rows = next(fitting, 1)
        shape = (BANDS * self._rows, 1)
        rng = np.random.default_rng(0)  # of the hash functions: the same in every export
        self._factors = rng.integers(1, 1 << 63, shape, dtype=np.uint64) | np.uint64(1)
        self._shifts = rng.integers(0, 1 << 63, shape, dtype=np.uint64)
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(BANDS)]
        self._sets: list[UInt64] = []

    def leader(self, text: str) -> int:
        """Return the number of the first instruction like this; a new number without any.

        Numbers count the instructions that begin a cluster, from 0.
        """
        own = ngrams(words(text) or [text], SHINGLE)
        keys = self._keys(own)
        bands = zip(self._bands, keys, strict=True)
        candidates = {number for band, key in bands for number in band.get(key, ())}
        for number in sorted(candidates):
            if _jaccard(own, self._sets[number]) >= self._similarity:
                return number
        number = len(self._sets)
        self._sets.append(own)
        for band, key in zip(self._bands, keys, strict=True):
            band.setdefault(key, []).append(number)
        return number

    def _keys(self, own: UInt64) -> list[bytes]:
        mixed = own[None, :] * self._factors + self._shifts  # modulo 2^64
        least = (mixed ^ (mixed >> np.uint64(29))).min(axis=1)
        return [band.tobytes() for band in least.reshape(BANDS, self._rows)]


def _jaccard(a: UInt64, b: UInt64) -> float:
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)
