"""What a template may hold: a whitelist over Jinja's syntax tree, and the environment for it.

Only `sandbox` imports this module, and only to read a template: importing Jinja takes time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import SimpleNamespace

from jinja2 import TemplateSyntaxError, Undefined, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

from steelyard.errors import UsageError, escape

LIST, ITEM, LOOP = "examples", "example", "loop"
LOOP_FIELDS = ("index", "first", "last")
DEEPEST = 32  # Jinja and Python stop at about a hundred
MOST = 1000  # names and blocks; Python's compiler takes long over tens of thousands
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = {"self", "super", "caller", "varargs", "kwargs"}  # Jinja's own
ALLOWED = (
    "a template has text, {{ name }}, {% if name %} with not, and, or, {% elif %},"
    f" {{% else %}}, {{% for {ITEM} in {LIST} %}} with {{{{ {ITEM}.field }}}} and"
    f" {{{{ {LOOP}.index }}}}, comments, and {{% raw %}} around text with braces"
)
_WORDS: dict[type[nodes.Node], str] = {
    nodes.Call: "a call",
    nodes.Filter: "a filter",
    nodes.FilterBlock: "a filter",
    nodes.Test: "a test with `is`",
    nodes.BinExpr: "arithmetic",
    nodes.UnaryExpr: "arithmetic",
    nodes.Concat: "joining with ~",
    nodes.CondExpr: "an `if` inside an expression",
    nodes.Getattr: "an attribute",
    nodes.Getitem: "a subscript",
    nodes.Const: "a constant where a name is meant",
    nodes.Literal: "a list, tuple or dictionary",
    # It would compare with the mark that stands for a text, and never with the text.
    nodes.Compare: "a comparison",
    nodes.Assign: "`set`",
    nodes.AssignBlock: "`set`",
    nodes.Macro: "a macro",
    nodes.CallBlock: "a call block",
    nodes.Block: "a block",
    nodes.Extends: "`extends`",
    nodes.Include: "`include`",
    nodes.Import: "`import`",
    nodes.FromImport: "`import`",
    nodes.With: "`with`",
    nodes.Scope: "`autoescape`",
    nodes.For: f"a loop other than `for {ITEM} in {LIST}`",
}


class AbsentError(Exception):
    """A template printed a name without a value; no user sees this error."""


class Absent(Undefined):
    """A name without a value: false in an `if`, an empty loop, an error where it is printed."""

    @override
    def __str__(self) -> str:
        of_item = isinstance(self._undefined_obj, SimpleNamespace)
        raise AbsentError(f"{ITEM}.{self._undefined_name}" if of_item else self._undefined_name)


def environment() -> ImmutableSandboxedEnvironment:
    """Make an empty Jinja environment: no loader, global, filter or test."""
    made = ImmutableSandboxedEnvironment(
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        undefined=Absent,
    )
    for names in (made.globals, made.filters, made.tests):
        names.clear()
    return made


@dataclass(slots=True)
class Grammar:
    """Walks a syntax tree, refuses what is not on the whitelist, and collects the names.

    `names` are the variables that the template uses; `printed` is the first line of each printed
    variable or field.
    """

    place: str
    names: set[str] = field(default_factory=set)
    printed: dict[str, int] = field(default_factory=dict)
    _in_loop: bool = False
    _count: int = 0

    def parse(self, source: str) -> nodes.Template:
        """Parse a source and check its tree.

        Raises:
            UsageError: the source is not Jinja, or the whitelist refuses a part of it.
        """
        try:
            tree = environment().parse(source)
        except TemplateSyntaxError as error:
            raise self.error(escape(error.message, 200), error.lineno) from None
        except RecursionError:
            raise self.error(f"blocks or conditions are nested deeper than {DEEPEST}") from None
        except ValueError as error:  # a number of thousands of digits
            raise self.error(f"a constant cannot be read: {escape(error, 100)}") from None
        self._body(tree.body, DEEPEST)
        return tree

    def error(self, cause: str, line: int | None = None) -> UsageError:
        """Return a refusal, with the line if that is known."""
        prefix = f"line {line}: " if line else ""
        return UsageError(prefix + cause, place=self.place, remedy=ALLOWED)

    def _refusal(self, node: nodes.Node) -> UsageError:
        word = next((words for kind, words in _WORDS.items() if isinstance(node, kind)), "this")
        return self.error(f"{word} is not allowed in a template", node.lineno)

    def _enter(self, node: nodes.Node, depth: int) -> None:
        self._count += 1
        if self._count > MOST:
            raise self.error(f"a template has at most {MOST:,} names and blocks", node.lineno)
        if not depth:
            raise self.error(f"blocks or conditions are nested deeper than {DEEPEST}", node.lineno)

    def _body(self, body: list[nodes.Node], depth: int) -> None:
        for node in body:
            self._enter(node, depth)
            if isinstance(node, nodes.Output):
                for part in node.nodes:
                    self._print(part)
            elif isinstance(node, nodes.If):
                self._condition(node.test, depth)
                self._body([*node.body, *node.else_, *node.elif_], depth - 1)
            elif isinstance(node, nodes.For):
                self._loop(node, depth)
            else:
                raise self._refusal(node)

    def _loop(self, node: nodes.For, depth: int) -> None:
        named = (
            isinstance(node.target, nodes.Name)
            and isinstance(node.iter, nodes.Name)
            and (node.target.name, node.iter.name) == (ITEM, LIST)
        )
        if not named or node.test is not None or node.else_ or node.recursive:
            raise self._refusal(node)
        if self._in_loop:
            raise self.error("a loop inside a loop is not allowed in a template", node.lineno)
        self.names.add(LIST)
        self._in_loop = True
        self._body(node.body, depth - 1)
        self._in_loop = False

    def _print(self, node: nodes.Node) -> None:
        if isinstance(node, nodes.TemplateData):
            return
        self._enter(node, DEEPEST)
        name = self._value(node)
        if name in (LIST, ITEM, LOOP):
            raise self.error(f"{name} is not a text and cannot be printed", node.lineno)
        self.printed.setdefault(name, node.lineno)

    def _condition(self, node: nodes.Node, depth: int) -> None:
        self._enter(node, depth)
        if isinstance(node, nodes.Not):
            self._condition(node.node, depth - 1)
        elif isinstance(node, nodes.And | nodes.Or):
            self._condition(node.left, depth - 1)
            self._condition(node.right, depth - 1)
        else:
            self._value(node)

    def _value(self, node: nodes.Node) -> str:
        """Return the variable or field that an expression names; refuse anything else."""
        if isinstance(node, nodes.Name):
            self._name(node)
            return node.name
        if isinstance(node, nodes.Getattr) and isinstance(node.node, nodes.Name):
            owner = node.node.name
            known = owner == ITEM or (owner == LOOP and node.attr in LOOP_FIELDS)
            if known and _NAME.fullmatch(node.attr):
                self._name(node.node)
                return f"{owner}.{node.attr}"
        raise self._refusal(node)

    def _name(self, node: nodes.Name) -> None:
        if not _NAME.fullmatch(node.name) or node.name in _RESERVED:
            raise self.error(f"{escape(node.name)} cannot be a name in a template", node.lineno)
        if node.name not in (ITEM, LOOP):
            self.names.add(node.name)
        elif not self._in_loop:
            raise self.error(f"{node.name} is known only inside the loop", node.lineno)
