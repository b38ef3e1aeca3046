"""The small changes that a test should notice, made in the syntax tree of a module.

Left alone are docstrings, annotations, what is for type checkers only, what errors and warnings
say, and settings of classes and `zip(strict=)` that only make mistakes louder. In strings that
look like SQL its operators are changed.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Mod: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
}  # fmt: skip
NAMES = {
    "min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all",
    "all": "any", "floor": "ceil", "ceil": "floor",
}  # fmt: skip
WORDS = {"left": "right", "right": "left"}
SQL = re.compile(r"\b(SELECT|FROM|JOIN|WHERE|CASE|WHEN|AND|OR|NULL|ORDER BY|coalesce|least)\b")
SQL_CHANGES = {
    r"\bAND\b": "OR", r"\bOR\b": "AND", r"\bIS NOT NULL\b": "IS NULL", r"\bIS NULL\b":
    "IS NOT NULL", r"\bNOT (?!NULL)": "", r" < ": " <= ", r" <= ": " < ", r" > ": " >= ",
    r" >= ": " > ", r" = ": " <> ", r" \+ ": " - ", r" - ": " + ", r" \* ": " / ", r" / ": " * ",
    r"\bleast\(": "greatest(", r"\bgreatest\(": "least(", r"\bmin\(": "max(", r"\bmax\(": "min(",
    r"\bDISTINCT ": "", r"\bLEFT JOIN\b": "JOIN", r"\bDESC\b": "ASC", r"\bUNION ALL\b": "UNION",
}  # fmt: skip
SILENT_KEYWORDS = {"strict", "stacklevel"}
SILENT_DECORATORS = {"dataclass", "cache", "lru_cache", "overload", "override"}
NOTHING = {"int": 0, "float": 0.0, "bool": False}  # what is returned in place of a value, or None
CONTEXT = 30  # characters of SQL before and after a change of it
ENOUGH = 16  # characters with which a change can be recognised


@dataclass(frozen=True)
class Mutant:
    """A change of one place of a module."""

    module: str  # path inside the repository
    line: int
    statement: int  # line on which the innermost statement with the change begins
    where: str  # function or class
    change: str  # before -> after
    source: str  # of the whole changed module


@dataclass(frozen=True)
class Slot:
    """A node, and the place of the tree that it can be replaced in."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    statement: ast.stmt
    where: str
    returns: str  # annotation of the function
    around: tuple[ast.AST, ...]  # expressions around the node, from its statement to it

    def put(self, node: ast.AST) -> None:
        """Replace the node."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return all changes of a module, in the order of its text; each differs from the others."""
    tree = ast.parse(source)
    seen, mutants = {ast.unparse(tree)}, []
    for slot in _slots(tree):
        shown = _shown(slot)
        before = ast.unparse(shown)
        for changed in _changes(slot):
            slot.put(changed)
            text = ast.unparse(tree)
            after = ast.unparse(changed if shown is slot.node else shown)
            slot.put(slot.node)
            shown_change = (before, after)
            texts = slot.node, changed
            if all(isinstance(x, ast.Constant) and _is_sql(x.value) for x in texts):
                shown_change = _around_difference(*(text.value for text in texts))
            if text not in seen:
                seen.add(text)
                line = getattr(slot.node, "lineno", slot.statement.lineno)
                change = " -> ".join(map(_on_one_line, shown_change))
                mutants.append(
                    Mutant(module, line, slot.statement.lineno, slot.where, change, text)
                )
    return sorted(mutants, key=lambda mutant: mutant.line)


def _is_sql(value: object) -> bool:
    return isinstance(value, str) and value not in WORDS


def _around_difference(before: str, after: str) -> tuple[str, str]:
    """Return the parts of two texts around the place where they begin to differ."""
    pairs = enumerate(zip(before, after, strict=False))
    place = next((k for k, (old, new) in pairs if old != new), min(len(before), len(after)))
    part = slice(max(place - CONTEXT, 0), place + CONTEXT)
    return before[part], after[part]


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _shown(slot: Slot) -> ast.AST:
    """Return the smallest expression around a change that says where it is."""
    if isinstance(slot.node, ast.stmt):
        return slot.node
    wide = [node for node in slot.around if len(ast.unparse(node)) >= ENOUGH]
    return wide[-1] if wide else (slot.around[0] if slot.around else slot.node)


def _slots(tree: ast.Module) -> Iterator[Slot]:
    yield from _walk(tree, None, "", "", ())


def _walk(
    node: ast.AST, statement: ast.stmt | None, where: str, returns: str, around: tuple[ast.AST, ...]
) -> Iterator[Slot]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        where = f"{where}.{node.name}".lstrip(".")
        returns = ast.unparse(annotation) if (annotation := getattr(node, "returns", None)) else ""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "type_params", "format_spec", "ctx", "op", "ops"}:
            continue
        many = isinstance(value, list)
        for index, child in enumerate(value if many else [value]):
            if not isinstance(child, ast.AST) or _is_left_alone(child, node, field):
                continue
            inside = child if isinstance(child, ast.stmt) else statement
            outer = () if isinstance(child, ast.stmt) else around
            if isinstance(child, ast.expr) and not isinstance(node, ast.JoinedStr):
                outer = (*outer, child)
            if inside is not None:
                number = index if many else None
                yield Slot(child, node, field, number, inside, where, returns, outer)
            if not isinstance(child, ast.Raise):
                yield from _walk(child, inside, where, returns, outer)


def _is_left_alone(child: ast.AST, parent: ast.AST, field: str) -> bool:
    match child:
        case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.alias():
            return True
        case ast.Expr(value=ast.Constant()):
            return True  # docstrings
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.keyword(arg=name) if name in SILENT_KEYWORDS:
            return True
        case ast.keyword() if isinstance(parent, ast.ClassDef):
            return True
        case ast.Call(func=func) if _name(func) in {"warn", "cast", "TypeVar", "ParamSpec"}:
            return True
        case _ if field == "decorator_list":
            target = child.func if isinstance(child, ast.Call) else child
            return _name(target) in SILENT_DECORATORS
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
    return False


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def _changes(slot: Slot) -> Iterator[ast.AST]:
    """Return what a node can be replaced by."""
    node = slot.node
    if isinstance(node, ast.stmt):
        yield from _statement(node, slot.returns)
    if slot.field in {"test", "ifs"}:
        negated = ast.UnaryOp(ast.Not(), node)
        yield node.operand if isinstance(node, ast.UnaryOp) else negated
    match node:
        case ast.Compare():
            yield from _comparison(node)
        case ast.BoolOp():
            yield _with(node, op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
            for k in range(len(node.values)):
                rest = node.values[:k] + node.values[k + 1 :]
                yield rest[0] if len(rest) == 1 else _with(node, values=rest)
        case ast.BinOp() if type(node.op) in ARITHMETIC and not _is_text(node):
            yield _with(node, op=ARITHMETIC[type(node.op)]())
        case ast.UnaryOp():
            yield node.operand
        case ast.Constant():
            yield from (ast.copy_location(ast.Constant(v), node) for v in _constants(node, slot))
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            key = "id" if isinstance(node, ast.Name) else "attr"
            yield _with(node, **{key: NAMES[name]})
        case ast.Slice():
            for side in ("lower", "upper"):
                if getattr(node, side) is not None:
                    yield _with(node, **{side: None})
        case ast.Call():
            for k, keyword in enumerate(node.keywords):
                if keyword.arg and keyword.arg not in SILENT_KEYWORDS:
                    yield _with(node, keywords=node.keywords[:k] + node.keywords[k + 1 :])


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _comparison(node: ast.Compare) -> Iterator[ast.AST]:
    for k, operator in enumerate(node.ops):
        yield _with(node, ops=[*node.ops[:k], COMPARISONS[type(operator)](), *node.ops[k + 1 :]])


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(side, ast.JoinedStr)
        or (isinstance(side, ast.Constant) and isinstance(side.value, str | bytes))
        for side in sides
    )


def _constants(node: ast.Constant, slot: Slot) -> Iterator[object]:
    match node.value:
        case bool():
            yield not node.value
        case int():
            yield from (node.value + 1, node.value - 1)
        case float():
            yield 1.0 if node.value == 0 else node.value * 2
        case str() if node.value in WORDS:
            yield WORDS[node.value]
        case str() if SQL.search(_whole_text(slot)):
            for pattern, word in SQL_CHANGES.items():
                for match in re.finditer(pattern, node.value):
                    yield node.value[: match.start()] + word + node.value[match.end() :]


def _whole_text(slot: Slot) -> str:
    pieces = slot.parent.values if isinstance(slot.parent, ast.JoinedStr) else [slot.node]
    return " ".join(str(getattr(piece, "value", "")) for piece in pieces)


def _statement(node: ast.stmt, returns: str) -> Iterator[ast.AST]:
    gone = ast.copy_location(ast.Pass(), node)
    match node:
        case ast.Expr() | ast.Raise() | ast.AugAssign() | ast.Delete():
            yield gone
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield gone
        case ast.Return(value=value) if value is not None:
            nothing = NOTHING.get(returns)
            if not (isinstance(value, ast.Constant) and value.value == nothing):
                yield ast.copy_location(ast.Return(ast.Constant(nothing)), node)
        case ast.Continue():
            yield ast.copy_location(ast.Break(), node)
            yield gone
        case ast.Break():
            yield ast.copy_location(ast.Continue(), node)
            yield gone
