"""How far annotators agree with each other, and the judge with each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steelyard.core.schemas import Bool, Int64

CLASSES = 3


@dataclass(frozen=True, slots=True)
class Annotator:
    """An annotator's agreement; shares are None if there is nothing to compare."""

    name: str
    votes: int
    with_others: float | None  # share of the other annotators' votes on the same pairs
    with_judge: float | None  # share of pairs on which the judge names the same class


def compare_annotators(
    pairs: Int64, annotators: Int64, classes: Int64, judged: Int64, names: tuple[str, ...]
) -> list[Annotator]:
    """Compare each annotator with the others and with the judge.

    Args:
        pairs: m votes' pairs, from 0.
        annotators: m, indices into `names`.
        classes: m, 0 to 2.
        judged: the class that the judge names, by pair; -1: the pair is not judged.
        names: of the annotators.
    """
    cells = np.bincount(pairs * CLASSES + classes, minlength=CLASSES * len(judged))
    table = cells.reshape(-1, CLASSES)
    others = table.sum(axis=1)[pairs] - 1
    same = table[pairs, classes] - 1
    known = judged[pairs] >= 0
    count = len(names)

    def shares(hits: Int64 | Bool, of: Int64 | Bool) -> list[float | None]:
        top = np.bincount(annotators, weights=hits, minlength=count)
        below = np.bincount(annotators, weights=of, minlength=count)
        return [a / b if b else None for a, b in zip(top.tolist(), below.tolist(), strict=True)]

    with_judge = shares((judged[pairs] == classes) & known, known)
    votes = np.bincount(annotators, minlength=count).tolist()
    return [*map(Annotator, names, votes, shares(same, others), with_judge)]


def pairwise_kappa(pairs: Int64, annotators: Int64, classes: Int64) -> float | None:
    """Return the mean of Cohen's (1960) kappas of any two annotators, by pairs that both judged.

    Two annotators who always name the same class leave kappa undefined and are left out.
    Arguments are as in `compare_annotators`.
    """
    order = np.lexsort((annotators, pairs))
    pairs, annotators, classes = pairs[order], annotators[order], classes[order]
    count = int(annotators.max()) + 1 if len(annotators) else 0
    who, cell = [], []
    for step in range(1, len(pairs)):
        rows = np.flatnonzero(pairs[step:] == pairs[:-step])
        if not len(rows):
            break
        who.append(annotators[rows] * count + annotators[rows + step])
        cell.append(classes[rows] * CLASSES + classes[rows + step])
    if not who:
        return None
    couples, code = np.unique(np.concatenate(who), return_inverse=True)
    codes = code * CLASSES**2 + np.concatenate(cell)
    tables = np.bincount(codes, minlength=len(couples) * CLASSES**2).reshape(-1, CLASSES, CLASSES)
    total = tables.sum(axis=(1, 2))
    agreed = np.trace(tables, axis1=1, axis2=2) / total
    chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    defined = chance < 1
    if not defined.any():
        return None
    kappas = (agreed[defined] - chance[defined]) / (1 - chance[defined])
    return float(kappas @ total[defined] / total[defined].sum())
