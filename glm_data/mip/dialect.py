"""The template dialect: what the 2,085 published templates use and no more, checked on the tree before anything runs.

Allowed are output, ``if``, ``for`` and ``set``, plain expressions, 27 filters and ``shuffle``, three functions and
fourteen methods of strings, lists and mappings. Whatever else Jinja can (macros, includes, ``**``, ``~``, underscore
names) is refused with the line. A checked tree is then rewritten so that the sandbox sees every step of its work.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, TemplateSyntaxError, nodes

from glm_data.errors import did_you_mean
from glm_data.mip.templates import TemplateError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FILTERS = _words(
    "abs capitalize choice default first float format int join last length list lower map min most_frequent random "
    "reject replace round select selectattr shuffle sort string trim unique upper"
)
TESTS = frozenset({"false", "equalto", "!="})
FUNCTIONS = frozenset({"range", "zip", "namespace"})
METHODS: dict[type, frozenset[str]] = {
    str: _words("split lower replace join strip startswith capitalize index"),
    list: _words("append index pop"),
    dict: _words("update keys items pop"),
}
METHOD_NAMES: frozenset[str] = frozenset().union(*METHODS.values())
MUTATORS = frozenset({"append", "pop", "update"})
RANDOM = frozenset({"choice", "random", "shuffle"})

LOOP, WEIGH, LABEL = "__loop", "__weigh", "__label"
"""Filters that the rewritten tree calls; templates cannot name them."""

CALLED = "()"
"""Begins the attribute of a method that is called; any other attribute is data, and no function is ever a value."""

MOST_CHARACTERS, MOST_NODES, MOST_DEPTH = 50_000, 5_000, 60

_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Name, nodes.NSRef,
    nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Getitem, nodes.Getattr, nodes.Slice,
    nodes.Call, nodes.Keyword, nodes.Filter, nodes.Test, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And,
    nodes.Or, nodes.Not, nodes.Neg, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.Mod,
)  # fmt: skip

_WORDS = {
    "Pow": "'**'", "Concat": "'~'", "Macro": "'macro'", "Include": "'include'", "Import": "'import'",
    "FromImport": "'from'", "Extends": "'extends'", "CallBlock": "'call'", "FilterBlock": "'filter' blocks",
    "AssignBlock": "'set' blocks", "Block": "'block'", "With": "'with'", "FloorDiv": "'//'", "Pos": "a leading '+'",
}  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """A template's source that passed, ready to be compiled."""

    tree: nodes.Template
    """Rewritten for the sandbox."""
    variables: frozenset[str]
    """Names that it reads and never sets: the row's fields, and ``answer_choices``."""
    is_random: bool
    mutates: bool
    """Whether it may change a list or mapping of the row."""


def check(source: str, where: str) -> Checked:
    """Parse and check a template's source; raises :class:`TemplateError` naming ``where``, the line and the reason."""
    tree = parse(source, where)
    found = _walk(tree, where)
    if len(found) > MOST_NODES:
        raise TemplateError(f"{where}: has {len(found)} parts, more than {MOST_NODES}; split it.")
    _refuse(found, where)
    filters = {node.name for node in found if isinstance(node, nodes.Filter)}
    arguments = {node.value for node in found if isinstance(node, nodes.Const) and isinstance(node.value, str)}
    methods = {node.attr for node in found if isinstance(node, nodes.Getattr)}
    names = [node for node in found if isinstance(node, nodes.Name)]
    variables = frozenset(node.name for node in names if node.ctx == "load") - FUNCTIONS - {"loop"}
    variables -= {node.name for node in names if node.ctx == "store"}
    for node in found:
        _rewrite(node)
    is_random = bool(RANDOM & filters or ("map" in filters and RANDOM & arguments))
    return Checked(tree, variables, is_random, bool(MUTATORS & methods))


def parse(source: str, where: str) -> nodes.Template:
    """The plain syntax tree; raises :class:`TemplateError` for what is no Jinja."""
    if len(source) > MOST_CHARACTERS:
        raise TemplateError(f"{where}: has {len(source)} characters, more than {MOST_CHARACTERS}; shorten it.")
    try:
        return Environment().parse(source)  # noqa: S701 - prompts are no HTML
    except TemplateSyntaxError as error:
        raise TemplateError(f"{where}: line {error.lineno}: {error.message}") from None
    except (RecursionError, ValueError, OverflowError, MemoryError):
        raise TemplateError(f"{where}: is nested too deeply or holds a number that is too long.") from None


def _walk(tree: nodes.Node, where: str) -> list[nodes.Node]:
    """All nodes, parents first; depth is bounded, so that neither we nor the compiler run out of stack."""
    found: list[nodes.Node] = []
    level: list[nodes.Node] = [tree]
    for _ in range(MOST_DEPTH):
        if not level:
            return found
        found += level
        level = [child for node in level for child in node.iter_child_nodes()]
    raise TemplateError(f"{where}: is nested more than {MOST_DEPTH} levels deep; simplify it.")


def _refuse(found: list[nodes.Node], where: str) -> None:
    called = {id(node.node) for node in found if isinstance(node, nodes.Call)}
    for node in found:
        reason = _refusal(node)
        if isinstance(node, nodes.Name) and node.name in FUNCTIONS and node.ctx == "load" and id(node) not in called:
            reason = f"function '{node.name}' can only be called"
        if reason:
            raise TemplateError(f"{where}: line {node.lineno}: {reason}.")


def _refusal(node: nodes.Node) -> str:
    """Why a node is not of the dialect; empty if it is."""
    if not isinstance(node, _NODES):
        name = type(node).__name__
        return f"{_WORDS.get(name, name)} is not part of the template dialect"
    if isinstance(node, nodes.Name | nodes.NSRef):
        return f"'{node.name}' is not for templates" if node.name.startswith("__") or node.name == "self" else ""
    if isinstance(node, nodes.Getattr):
        return f"'.{node.attr}' begins with an underscore" if node.attr.startswith("_") else ""
    if isinstance(node, nodes.Filter):
        if node.node is None or node.dyn_args or node.dyn_kwargs:
            return "filter blocks and unpacked arguments are not part of the template dialect"
        return _unknown("filter", node.name, FILTERS)
    if isinstance(node, nodes.Test):
        return _unknown("test", node.name, TESTS)
    if isinstance(node, nodes.Call):
        return _refuse_call(node)
    if isinstance(node, nodes.For) and node.recursive:
        return "recursive loops are not part of the template dialect"
    if isinstance(node, nodes.Const) and isinstance(node.value, int) and node.value.bit_length() > 64:
        return "the number is too large"
    return ""


def _refuse_call(node: nodes.Call) -> str:
    if node.dyn_args or node.dyn_kwargs:
        return "unpacked arguments are not part of the template dialect"
    if isinstance(node.node, nodes.Name):
        return _unknown("function", node.node.name, FUNCTIONS)
    if isinstance(node.node, nodes.Getattr):
        return _unknown("method", node.node.attr, METHOD_NAMES)
    return "only functions and methods can be called by name"


def _unknown(kind: str, name: str, known: frozenset[str]) -> str:
    if name in known:
        return ""
    return f"{kind} '{name}' is not part of the template dialect{did_you_mean(name, known).rstrip('.?').rstrip()}"


def _rewrite(node: nodes.Node) -> None:
    """Mark what loops, calls, compares, slices, hashes or looks up a label for the sandbox to count or refuse."""
    if isinstance(node, nodes.For):
        node.iter = _call(node.iter, LOOP)
    elif isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
        node.node.attr = CALLED + node.node.attr
    elif isinstance(node, nodes.Compare | nodes.Operand):
        node.expr = _call(node.expr, WEIGH)
    elif isinstance(node, nodes.Pair):
        node.key = _call(node.key, WEIGH)
    elif isinstance(node, nodes.Getitem):
        if isinstance(node.arg, nodes.Slice):
            node.node = _call(node.node, WEIGH)
        elif is_choices(node.node) and not _is_constant(node.arg):
            node.arg = _call(node.arg, LABEL)


def _call(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def is_choices(node: nodes.Expr) -> bool:
    """Whether an expression is ``answer_choices`` or a list written out, which labels are looked up in."""
    return isinstance(node, nodes.List | nodes.Tuple) or (
        isinstance(node, nodes.Name) and node.name == "answer_choices"
    )


def _is_constant(node: nodes.Expr) -> bool:
    return isinstance(node, nodes.Const) or (isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const))
