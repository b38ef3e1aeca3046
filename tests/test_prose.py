"""The worst habits of this project's early prose do not come back (see CONTRIBUTING.md).

Patterns are looked for in strings and comments of code, and in documents. Names and docstrings of
functions are looked up in the syntax trees.
"""

import ast
import io
import re
import tokenize
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_UNIT = (
    "rows?|tokens?|bytes?|pairs?|verdicts?|prompts?|reads?|lines?|keys?|texts?|digests?|requests?"
    "|columns?|files?|ids?|labels?|characters?|images?|numbers?|values?|seconds?|J|Wh|MB|KB"
)
_PER = (
    "rows?|pair|prompt|verdict|read|second|minute|hour|night|bucket|thousand|million|response"
    "|instruction|block|label|part|shard|file|judge|step|criterion|group|cluster|order|line|token"
)
PATTERNS = {
    "say this many, or the number": r"\bso (many|few)\b",
    "say is not a X, there is no X": r"(?<![Tt]here\s)\b(is|are|was|were)\s+no\s+(?!longer|more)",
    "say per": rf"\b({_UNIT}) an? ({_PER})\b",
    "help texts begin with a noun or a verb": r"\bhelp\s*=\s*f?[\"'](Of|Whom|Whether)\b",
    "say is, is in or comes first": r"\b(stands?|stood)\b(?! for\b)",
    "say reports, distinguishes or is known": r"\b(tell|tells|told)\b",
    "say next to, alongside or besides": r"\bbeside\b",
    "say after": r"\bbehind\b",
    "say separate": r"\bof (its|their) own\b",
    "say have changed, or differ": r"\b(are others than|is another than|is none\b)",
    "say what is the same": r"\bThe same for people\b",
    "do not send readers away": r"\b[Ss]ee there\b",
    "let @override say it": r'"""See `?\w+`?\.',
}
# First words of a noun phrase: a function's docstring begins with a verb in the imperative.
NOT_IMPERATIVE = {
    "A", "All", "An", "As", "Each", "Every", "For", "From", "How", "If", "Its", "No", "None", "Of",
    "One", "See", "That", "The", "Their", "Those", "This", "To", "What", "When", "Where",
    "Whether", "Which", "Who", "Whom", "With",
}  # fmt: skip
CATCH_ALL_NAMES = {"one", "found", "at"}

PACKAGES = sorted(p for p in (ROOT / "engine/steelyard").iterdir() if (p / "__init__.py").exists())
GROUPS = {
    **{package.name: sorted(package.rglob("*.py")) for package in PACKAGES},
    "top": sorted((ROOT / "engine/steelyard").glob("*.py")),
    "kernels": sorted((ROOT / "kernels").rglob("*.py")),
    "benchmarks": sorted((ROOT / "benchmarks").rglob("*.py")),
    "docs": sorted(
        chain((ROOT / "docs").rglob("*.md"), ROOT.glob("*.md"), ROOT.glob("benchmarks/*.md"),
              ROOT.glob("docker/*.md"))
    ),
}  # fmt: skip


def prose_of(path):
    """Return (line, text) of each string and comment of a module, or each line of a document."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    kinds = {tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    previous, pieces = "", []
    for token in tokens:
        if token.type in kinds:
            prefix = "help=" if previous == "help=" else ""
            pieces.append((token.start[0], prefix + token.string))
        previous = "help=" if token.string == "=" and previous == "help" else token.string
    return pieces


def habits_in(pieces):
    """Return the lines of prose that fall into a habit, and what to say instead."""
    return [
        f"{line + text[: match.start()].count(chr(10))}: {match[0]!r}: {advice}"
        for line, text in pieces
        for advice, pattern in PATTERNS.items()
        for match in re.finditer(pattern, text)
    ]


def is_function(node):
    """Tell functions from properties and overloads, whose docstrings may be nouns."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    decorators = {ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list}
    return not decorators & {"property", "cached_property", "functools.cached_property"}


def noun_docstrings(tree):
    """Return functions whose docstring does not begin with a verb."""
    return [
        f"{node.lineno}: {node.name}: {doc.splitlines()[0]}"
        for node in ast.walk(tree)
        if is_function(node) and (doc := ast.get_docstring(node))
        if re.split(r"\W", doc, maxsplit=1)[0] in NOT_IMPERATIVE
    ]


def catch_all_names(tree):
    """Return bindings of names that could mean anything."""
    names = [
        (node.lineno, node.id if isinstance(node, ast.Name) else node.arg)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        or isinstance(node, ast.arg)
    ]
    return [f"{line}: the name {name}" for line, name in names if name in CATCH_ALL_NAMES]


@pytest.mark.parametrize("group", GROUPS)
def test_prose(group):
    faults = []
    for path in GROUPS[group]:
        lines = habits_in(prose_of(path))
        if path.suffix == ".py" and group != "benchmarks":
            tree = ast.parse(path.read_text("utf-8"))
            lines += noun_docstrings(tree) + catch_all_names(tree)
        faults += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults)


@pytest.mark.parametrize(
    "text",
    [
        "it takes so many rows",
        "this is no run directory",
        "80 bytes a row",
        "12 tokens a second",
        "the table stands in the store",
        "as people are told",
        "the text beside it",
        "a thread of its own",
        "their sizes are others than they were",
    ],
)
def test_the_patterns_catch(text):
    assert habits_in([(1, text)])


@pytest.mark.parametrize(
    "text",
    [
        "it is not a run directory",
        "there is no run",
        "it is no longer there",
        "A stands for response_a",
        "80 bytes per row",
    ],
)
def test_the_patterns_allow(text):
    assert not habits_in([(1, text)])


def test_the_syntax_rules_catch():
    source = 'def f(at):\n    """The rows of a query."""\n    for one in at:\n        pass\n'
    tree = ast.parse(source)
    assert noun_docstrings(tree)
    assert len(catch_all_names(tree)) == 2
