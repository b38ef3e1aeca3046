"""Judges that are open, with what they are asked in their own words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass

from steelyard.core.config import RunConfig, fingerprint
from steelyard.core.images import IMAGE_RULE
from steelyard.core.judges import Answer, LabelSet
from steelyard.errors import JudgeUnavailable, UsageError, escape
from steelyard.judge import open_judge
from steelyard.judge.base import Judge, JudgeSpec
from steelyard.plan.spec import Form, JudgeForms, JudgingSpec
from steelyard.prompts.forms import SEGMENT_RULE, make_form
from steelyard.prompts.maker import PromptMaker
from steelyard.protocols.protocol import Example, Protocol
from steelyard.store.run_record import JudgeRecord


@dataclass(frozen=True, slots=True)
class PreparedJudge:
    """An open judge and what it is asked."""

    judge: Judge  # open; its engine may be started
    number: int  # its position among the judges of the run
    spec: JudgingSpec
    forms: JudgeForms  # the spec in its words
    truncate: bool  # whether longer prompts have their texts cut

    @property
    def answer(self) -> Answer:
        """How its answers are read."""
        return self.forms.answer

    def record(self) -> JudgeRecord:
        """Return what run.json says of it."""
        card = asdict(self.judge.card)
        return JudgeRecord(**card, context_length=self.judge.context_length, part=self.forms)

    def maker(self, recorded: JudgeRecord | None = None) -> PromptMaker:
        """Return what makes its prompts; the context is at most that of the judge recorded."""
        context = self.judge.context_length
        if recorded is not None:
            context = min(context, recorded.context_length)
        return PromptMaker(
            self.judge.encoder,
            self.forms.forms,
            context - self.answer.room,
            truncate=self.truncate,
            axes=self.spec.axes,
            judge=self.number,
            categories=self.spec.categories,
        )


def run_fingerprint(judges: Sequence[PreparedJudge], spec: JudgingSpec) -> str:
    """Hash all that can change a verdict's reads, to 32 hex digits."""
    prints = [(*each.forms.fingerprints, *each.forms.pictured) for each in judges]
    return fingerprint({"forms": prints, "questions": asdict(spec.axes)})


@contextmanager
def open_judges(
    config: RunConfig,
    spec: JudgingSpec,
    examples: Sequence[Example] = (),
    *,
    images: str | None = None,
    recorded: Sequence[JudgeRecord] | None = None,
    remote: bool = True,
) -> Iterator[list[PreparedJudge]]:
    """Open the judges of a config one after another; close them at the end.

    Args:
        config: names the judges.
        spec: what they are asked.
        examples: worked examples of all categories.
        images: the input's column of images, if there is one.
        recorded: judges of the run that goes on, whose forms are taken: templates that have
            changed since do not change its prompts.
        remote: whether judges may be fetched from the hub.

    Raises:
        UsageError: a label is not a single token of a judge, or it does not take images.
        JudgeUnavailable: a judge cannot be opened, or its chat template loses a part of the prompt.
    """
    truncate = config.overlong == "truncate"
    with ExitStack() as stack:
        prepared = []
        for number, name in enumerate(config.judge):
            wanted = JudgeSpec(
                name, name, config.revision, config.engine, config.replicas, remote=remote
            )
            judge = stack.enter_context(closing(open_judge(wanted)))
            if recorded is None:
                forms = make_forms(judge, spec, examples, images)
            else:
                forms = recorded[number].part.forms
            judged = _judge_forms(judge, spec, forms, truncate=truncate)
            prepared.append(PreparedJudge(judge, number, spec, judged, truncate))
        yield prepared


def make_forms(
    judge: Judge,
    spec: JudgingSpec,
    examples: Sequence[Example] = (),
    images: str | None = None,
) -> tuple[Form, ...]:
    """Return what a judge is asked in its chat format; for the arguments see `open_judges`."""
    if images is not None and judge.images is None:
        raise UsageError(
            f"the column {escape(images)!r} holds images, and {judge.card.name} takes text only",
            remedy="choose a vision-language judge, or judge by the texts alone: --map images=",
        )
    forms = []
    for protocol in spec.protocols:
        for category in (None, *spec.categories):
            own = [example for example in examples if example.category == category]
            fitting = own or [example for example in examples if example.category is None]
            forms.append(make_form(protocol, judge.encoder, fitting, images=images is not None))
    return tuple(forms)


def _judge_forms(
    judge: Judge, spec: JudgingSpec, forms: tuple[Form, ...], *, truncate: bool
) -> JudgeForms:
    """Add how the judge's answers are read, and the fingerprints of all."""
    answer = answer_of(judge, spec.protocol)
    prints = [_form_fingerprint(judge, answer, form, truncate=truncate) for form in forms]
    pictured = [
        fingerprint(
            {
                "form": plain,
                "templates": form.pictured,
                "blocks": list(form.blocks),
                "judge": judge.images,
                "rule": IMAGE_RULE,
            }
        )
        for form, plain in zip(forms, prints, strict=True)
        if form.pictured
    ]
    return JudgeForms(answer, forms, tuple(prints), tuple(pictured))


def _form_fingerprint(judge: Judge, answer: Answer, form: Form, *, truncate: bool) -> str:
    """Hash all that can change a read of a prompt of texts in this form, to 32 hex digits."""
    card = asdict(judge.card)
    for name in ("name", "model", "revision"):  # change nothing: the digests say what the files are
        del card[name]
    return fingerprint(
        {
            "judge": card,
            "answer": asdict(answer),
            "form": {"templates": form.templates, "constants": form.constants},
            "context": judge.context_length if truncate else None,
            "segments": SEGMENT_RULE,
        }
    )


def answer_of(judge: Judge, protocol: Protocol) -> Answer:
    """Return how a judge's answers are read.

    Raises:
        UsageError: a label is not a single token of it.
        JudgeUnavailable: it gives scores, and the protocol asks for something else.
    """
    if judge.kind == "score":
        raise JudgeUnavailable(
            f"{judge.card.name} gives one score for a text and writes nothing: it has no answer"
            f" to the protocol {protocol.name}",
            effect="nothing was read",
            remedy="choose a judge that generates text",
        )
    encoder = judge.encoder
    variants = tuple(encoder.label_variants(name) for name in protocol.labels)
    labels = LabelSet(protocol.labels, variants)
    if protocol.answer == "label":
        return Answer(labels)
    verdict = encoder.encode_template(protocol.verdict, first=False) if protocol.verdict else []
    return Answer(
        labels,
        kind=protocol.answer,
        max_tokens=protocol.max_tokens,
        temperature=protocol.temperature,
        ends=tuple(encoder.ends),
        verdict=tuple(verdict),
        low=protocol.range[0],
        high=protocol.range[1],
        tag=protocol.tag,
    )
