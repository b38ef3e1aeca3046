"""What a model can answer, by the architecture that config.json names: labels, or one score."""

from __future__ import annotations

from typing import Literal

from steelyard.errors import JudgeUnavailable, escape
from steelyard.judge.model.files import ModelFiles

Kind = Literal["model", "score"]  # it generates, or a head gives one number per prompt

_CLASSIFIER = "ForSequenceClassification"
# Heads that answer neither with a next token nor with one number per prompt.
_OTHER_HEADS = {
    "ForMaskedLM": "fills gaps in a text",
    "ForTokenClassification": "gives a number for each token",
    "ForQuestionAnswering": "marks a passage of a text",
    "ForRewardModel": "gives a number for each token",
    "ForProcessRewardModel": "gives a number for each step of a text",
    "Model": "gives embeddings and has no head",
}
_GENERATING = ("LMHeadModel", "ChatModel")  # they end in "Model" all the same
# Model types that look at a text from both sides.
_ENCODERS = frozenset(
    [
        "albert",
        "bert",
        "camembert",
        "deberta",
        "deberta-v2",
        "distilbert",
        "electra",
        "ernie",
        "modernbert",
        "mpnet",
        "nomic_bert",
        "roberta",
        "xlm-roberta",
    ]
)


def kind_of(files: ModelFiles) -> Kind:
    """Return what a model answers with.

    Raises:
        JudgeUnavailable: neither with a next token nor with one number per prompt.
    """
    name = next(iter(files.architectures), "")
    if name.endswith(_CLASSIFIER):
        _check_classifier(files)
        return "score"
    for ending, does in _OTHER_HEADS.items():
        if name.endswith(ending) and not name.endswith(_GENERATING):
            raise _unfit(files, f"the model ({escape(name)}) {does}")
    return "model"


def _check_classifier(files: ModelFiles) -> None:
    if (labels := files.head_width) != 1:
        raise _unfit(files, f"the model sorts texts into {labels} classes (num_labels)")
    if (kind := files.config.get("model_type")) in _ENCODERS:
        raise _unfit(files, f"the model type {escape(kind)} is an encoder without a chat format")


def _unfit(files: ModelFiles, cause: str) -> JudgeUnavailable:
    return JudgeUnavailable(
        f"{cause}: it cannot judge",
        place=str(files.folder),
        effect="nothing was read",
        remedy="choose a model that generates text (ForCausalLM), or a reward model with one score"
        " per text (ForSequenceClassification with num_labels 1)",
    )
