"""A bucket's texts -> its prompts as token rows, in the order in which neighbours share most."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from steelyard.core.batches import TokenRows, Unique
from steelyard.core.images import MOST_IMAGES, read_digests
from steelyard.core.schemas import Bool, Int32, Int64
from steelyard.judge.base import Encoder
from steelyard.plan.keys import form_of
from steelyard.plan.spec import Form
from steelyard.prompts.forms import EMPTY, Compiled, compile_template, compose
from steelyard.prompts.text_codes import CodedTexts, TextTable, distinct
from steelyard.protocols.axes import PromptAxes
from steelyard.protocols.protocol import SLOT_COLUMNS
from steelyard_kernels.prefix import lexicographic_order

ENCODE_BYTES = 4 << 20  # texts given to the tokenizer at once: its own records are many times that


@dataclass(frozen=True, slots=True)
class PreparedBucket:
    """A bucket's prompts in feeding order: neighbours share as long a beginning as they can.

    The floor of a prompt are the tokens that it does not share with the one before it: together the
    least that any cache of prefixes leaves to compute. It is 0 for overlong prompts, which come
    last and are never computed.
    """

    number: int  # of the bucket
    unique: Unique  # the bucket's unique prompts
    unread: Int64  # indices of those that no part holds yet
    fed: Int64  # for each prompt here, its index in `unique`
    keys: list[bytes]
    rows: TokenRows
    truncated: Bool  # prompts whose data was cut
    floor: Int32
    fitting: int  # how many prompts are not overlong
    images: Sequence[tuple[str, ...]] = ()  # digests of each prompt's; (): none has any


class PromptMaker:
    """Makes a judge's prompts of texts, bucket after bucket.

    Args:
        encoder: the judge's.
        forms: the judge's.
        context: tokens that a prompt may have.
        truncate: whether longer ones are cut; else they are overlong.
        axes: in what a pair's prompts differ.
        judge: the judge's number among them.
        categories: those with separate forms (plan.spec.KeySpec).
    """

    def __init__(
        self,
        encoder: Encoder,
        forms: Sequence[Form],
        context: int,
        *,
        truncate: bool,
        axes: PromptAxes | None = None,
        judge: int = 0,
        categories: tuple[str, ...] = (),
    ) -> None:
        self.encoder, self.context = encoder, context
        self._forms, self._truncate = forms, truncate
        self._axes, self._judge, self._categories = axes or PromptAxes(), judge, categories
        # By optional slots present and number of images; those with images follow when needed.
        self._compiled = [
            {
                (name, 0): compile_template(text, encoder, form.constants)
                for name, text in form.templates.items()
            }
            for form in forms
        ]
        # The prompt before the next bucket, which shares its template with it.
        self._last: Int32 = np.zeros(0, dtype=np.int32)

    @property
    def template_tokens(self) -> int:
        """Tokens of the longest template without data."""
        return max(template.fixed for form in self._compiled for template in form.values())

    @property
    def least_tokens(self) -> int:
        """Tokens of the longest form when no row has any optional text."""
        return max(form["", 0].fixed for form in self._compiled)

    def _own(self, unique: Unique) -> Bool:
        """Return which of a bucket's unique prompts are this judge's."""
        count = np.diff(unique.starts)[unique.pairs]
        number = np.arange(len(unique.inverse)) - unique.starts[:-1][unique.pairs]
        own: Bool = (number * self._axes.judges // count)[unique.first] == self._judge
        return own

    def prepare(
        self, bucket: int, texts: pa.Table, unique: Unique, unread: Int64
    ) -> PreparedBucket | None:
        """Return a bucket's prompts in feeding order; None where nothing is left for this judge.

        Args:
            bucket: its number.
            texts: TEXTS of its n pairs.
            unique: its unique prompts.
            unread: indices of the unique prompts that no part holds yet.
        """
        pending = unread if self._axes.judges == 1 else unread[self._own(unique)[unread]]
        if not len(pending):
            return None
        asked = unique.first[pending]
        group, sets = _images(texts, unique.pairs[asked])
        coded = self._coded(texts, unique, asked, [len(sets[number]) for number in group.tolist()])
        rows, truncated = self._compose(coded)
        order, floor, fitting = self._order(rows, group if sets[1:] else None)
        fed = pending[order]
        return PreparedBucket(
            number=bucket,
            unique=unique,
            unread=unread,
            fed=fed,
            keys=[unique.keys[index] for index in fed.tolist()],
            rows=rows.take(order),
            truncated=truncated[order],
            floor=floor,
            fitting=fitting,
            images=[sets[number] for number in group[order].tolist()] if sets[1:] else (),
        )

    def _compose(self, coded: CodedTexts) -> tuple[TokenRows, Bool]:
        """Tokenise every segment once, and join them to prompts."""
        pieces = [np.zeros(0, dtype=np.int32)]  # EMPTY
        used = [self._template(form, filled) for form, filled in coded.kinds]
        width = 1 + 2 * max((len(template.slots) for template in used), default=0)
        parts = np.full((len(coded), width), EMPTY, dtype=np.int32)
        for kind, template in enumerate(used):
            rows = np.flatnonzero(coded.kind == kind)
            for column, piece in enumerate(template.pieces):
                parts[rows, 2 * column] = len(pieces)
                pieces.append(piece)
        for kind, template in enumerate(used):
            rows = np.flatnonzero(coded.kind == kind)
            for column, slot in enumerate(template.slots):
                parts[rows, 2 * column + 1] = len(pieces) + coded.slots[slot][rows]
        segments = TokenRows.concat([TokenRows.of(pieces), *self._encode(coded.texts)])
        return compose(segments, parts, self.context if self._truncate else None)

    def _template(self, form: int, filled: tuple[str, ...]) -> Compiled:
        """Return the template of a form and number of images, as `_coded` packs them.

        It may show fewer of the optional slots than are `filled`.
        """
        number, images = divmod(form, MOST_IMAGES + 1)
        rendered, known = self._forms[number], self._compiled[number]
        name = "+".join(name for name in filled if name in rendered.templates)
        if (name, images) not in known:
            text = rendered.template(name, images)
            known[name, images] = compile_template(text, self.encoder, rendered.constants)
        return known[name, images]

    def _coded(
        self, texts: pa.Table, unique: Unique, prompts: Int64, images: Sequence[int]
    ) -> CodedTexts:
        """Code the texts that these prompts show; `images` counts those of each prompt."""
        row = unique.pairs[prompts]
        orders = np.full(len(row), len(self._axes.orders))
        if self._axes.shows == "response":
            orders -= texts["response_b"].is_null().to_numpy()[row]
        number, count = prompts - unique.starts[row], np.diff(unique.starts)[row]
        position = self._axes.locate(number, count, orders)
        shown = sorted(
            {slot for form in self._compiled for used in form.values() for slot in used.slots}
        )
        table = TextTable()
        slots = {}
        for slot in shown:
            if slot == "criterion":
                slots[slot] = self._criterion(table, texts, row, position.criterion)
                continue
            first, other = (table.add(texts, name) for name in SLOT_COLUMNS[slot])
            slots[slot] = np.where(position.swapped == 1, other[row], first[row])
        known, codes = table.compact(slots)
        category = form_of(texts["category"], self._categories)[row]
        form = position.variant * (len(self._categories) + 1) + category
        form = form * (MOST_IMAGES + 1) + np.asarray(images, dtype=np.int64)
        return CodedTexts.of(known, codes, form, len(row))

    def _criterion(self, table: TextTable, texts: pa.Table, row: Int64, number: Int64) -> Int64:
        if self._axes.criteria:
            return table.add_texts([criterion.text for criterion in self._axes.criteria])[number]
        lists, written = distinct(texts["criteria"])
        items = [json.loads(text) for text in written.to_pylist()]
        starts = np.cumsum([0, *map(len, items)])
        code = table.add_texts([item for row_items in items for item in row_items])
        return code[starts[lists[row]] + number]

    def _encode(self, texts: list[str]) -> list[TokenRows]:
        rows, start, size = [], 0, 0
        for end, text in enumerate(texts, 1):
            size += len(text)
            if size >= ENCODE_BYTES or end == len(texts):
                rows.append(self.encoder.encode_data(texts[start:end]))
                start, size = end, 0
        return rows

    def _order(self, rows: TokenRows, group: Int64 | None) -> tuple[Int64, Int32, int]:
        """Return the prefix order with overlong rows last, the floor of each, and how many fit.

        Args:
            rows: prompts.
            group: images of each, which come before the texts; the floor does not count them.
        """
        fits = rows.lengths <= self.context
        fit, long = np.flatnonzero(fits), np.flatnonzero(~fits)
        fitting = rows if fits.all() else rows.take(fit)
        order, shared = lexicographic_order(fitting.tokens, fitting.offsets)
        if group is not None:
            order = order[np.argsort(group[fit][order], kind="stable")]
            both = pairwise(order.tolist())
            shared[1:] = [common_beginning(fitting[a], fitting[b]) for a, b in both]
        floor = np.zeros(len(rows), dtype=np.int32)
        if len(order):
            floor[: len(order)] = fitting.lengths[order] - shared
            floor[0] -= common_beginning(self._last, fitting[order[0]])
            self._last = fitting[order[-1]].copy()
        return np.concatenate([fit[order], long]), floor, len(order)


def _images(texts: pa.Table, pairs: Int64) -> tuple[Int64, list[tuple[str, ...]]]:
    """Return each pair's images as the number of a set of digests, and the sets; set 0 is empty."""
    code, written = distinct(texts["images"])
    return code[pairs] + 1, [(), *map(read_digests, written.to_pylist())]


def common_beginning(a: Int32, b: Int32) -> int:
    """Count the tokens that two rows have in common at their beginning."""
    both = min(len(a), len(b))
    differs = np.flatnonzero(a[:both] != b[:both])
    return int(differs[0]) if len(differs) else both
