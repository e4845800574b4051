"""Runs checked templates with bounded work, bounded output and nothing within reach but the row.

Three walls: the syntax tree is of the dialect (:mod:`glm_data.mip.dialect`); attributes, calls, filters and globals are
allow-lists; and every step is paid for from a budget *before* it is done, in proportion to what it will touch, so that
nested loops, doubling strings, ``x * 10**9`` or deep comparisons end as refusals. The budget is counted in steps, not
seconds: the same row fares alike on every machine. A step is a few microseconds at most.

An environment serves one thread at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NoReturn, cast

import xxhash
from jinja2 import Template, Undefined, pass_context
from jinja2 import filters as jinja_filters
from jinja2.runtime import LoopContext
from jinja2.sandbox import SandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from glm_data.mip import dialect
from glm_data.mip.dialect import Checked
from glm_data.mip.templates import TemplateError

DEFAULT_MOST_STEPS = 500_000
DEFAULT_LONGEST_OUTPUT = 1_000_000

_MOST_RANGE = 10_000
_MOST_BITS = 4096
_LOOP_ATTRIBUTES = frozenset(
    ("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem", "nextitem")
)
_CONTAINERS = (list, tuple, dict, set, frozenset)
_VIEWS: tuple[type, ...] = (type({}.keys()), type({}.items()), type({}.values()))
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(?:\*|\d{4,})")


class LimitError(Exception):
    """A render would exceed its budget of steps or characters."""


class HiddenLabelError(Exception):
    """The label is -1: the data set hides it, and indexing with it would silently take the last choice."""


class Budget:
    """Steps that a render may still take."""

    def __init__(self) -> None:
        self.left = 0

    def pay(self, steps: int) -> None:
        """Take ``steps`` off; raises :class:`LimitError` when they are used up."""
        self.left -= steps
        if self.left < 0:
            raise LimitError("it takes too many steps")

    def weigh(self, value: Any) -> Any:
        """Pay for one look at all of ``value``, nested parts as often as they appear; returns it."""
        kind = type(value)
        if kind is str:
            self.pay(1 + (len(value) >> 5))
        elif kind in _CONTAINERS or kind in _VIEWS:
            self._weigh_nested(value)
        else:
            self.pay(1)
        return value

    def _weigh_nested(self, value: Any) -> None:
        waiting = [value]
        while waiting:
            item = waiting.pop()
            kind = type(item)
            if kind is str:
                self.pay(1 + (len(item) >> 5))
            elif kind in _CONTAINERS or kind in _VIEWS:
                self.pay(1 + len(item))
                waiting.extend(item)
                if kind is dict:
                    waiting.extend(item.values())
            else:
                self.pay(1)


class Draws:
    """Seeded choices (SplitMix64): the same on every platform and Python version."""

    def __init__(self, key: str) -> None:
        self._state = xxhash.xxh3_64_intdigest(key.encode())

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        return ((z ^ (z >> 31)) * n) >> 64

    def shuffle(self, items: Iterable[Any]) -> list[Any]:
        """A shuffled copy (Fisher-Yates)."""
        shuffled = list(items)
        for place in range(len(shuffled) - 1, 0, -1):
            other = self.below(place + 1)
            shuffled[place], shuffled[other] = shuffled[other], shuffled[place]
        return shuffled


class TemplateEnvironment(SandboxedEnvironment):
    """Compiles and runs templates of the dialect. Use :meth:`compile_checked` and :meth:`run`."""

    intercepted_binops = frozenset({"+", "*", "%"})

    def __init__(self, most_steps: int = DEFAULT_MOST_STEPS, longest_output: int = DEFAULT_LONGEST_OUTPUT) -> None:
        super().__init__(optimized=False, cache_size=0, finalize=None)
        self.budget = Budget()
        self.most_steps, self.longest_output = most_steps, longest_output
        self.draws: Draws | None = None
        self._draw_key = ""
        self.finalize = self._finalize_output  # wants the context, so that Jinja folds no constant while compiling
        self.globals = {"range": self._range, "zip": self._zip, "namespace": Namespace}
        self.tests = {name: self._weighed(cast(Callable[..., Any], TESTS[name])) for name in dialect.TESTS}
        self.filters = self._make_filters()

    def compile_checked(self, checked: Checked, where: str) -> Template:
        """Compile a checked tree; raises :class:`TemplateError` if Jinja cannot."""
        try:
            return self.from_string(checked.tree)
        except Exception as error:
            raise TemplateError(f"{where}: cannot be compiled ({error}).") from None

    def run(self, template: Template, variables: Mapping[str, Any], draw_key: str) -> str:
        """Render with a fresh budget; ``variables`` must not hold functions. Raises whatever the template provokes."""
        self.budget.left, self.draws, self._draw_key = self.most_steps, None, draw_key
        context = self.context_class(self, {**self.globals, **variables}, None, {})
        chunks: list[str] = []
        size = 0
        for chunk in template.root_render_func(context):
            size += len(chunk)
            if size > self.longest_output:
                raise LimitError("its output is too long")
            chunks.append(chunk)
        return "".join(chunks)

    @pass_context
    def _finalize_output(self, context: Any, value: Any) -> Any:
        if type(value) is not str:
            self.budget.weigh(value)
        return value

    def _draw(self) -> Draws:
        if self.draws is None:
            self.draws = Draws(self._draw_key)
        return self.draws

    # ---- attributes, items, calls, operators: the hooks of Jinja's sandbox

    def getattr(self, obj: Any, attribute: str) -> Any:
        """The method of a call, an item of a mapping, what a loop or namespace holds, or undefined."""
        if isinstance(obj, Undefined):
            return getattr(obj, attribute.removeprefix(dialect.CALLED))
        kind = type(obj)
        if attribute.startswith(dialect.CALLED):
            method = attribute.removeprefix(dialect.CALLED)
            known = method in dialect.METHODS.get(kind, frozenset())
            return getattr(obj, method) if known else self.undefined(obj=obj, name=method)
        if kind is dict and attribute in obj:
            return obj[attribute]
        if (kind is Namespace and not attribute.startswith("_")) or (
            isinstance(obj, LoopContext) and attribute in _LOOP_ATTRIBUTES
        ):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                pass
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item of a string, list or mapping, or undefined."""
        self.budget.weigh(argument)
        if isinstance(obj, Undefined) or type(obj) in (str, list, tuple, dict):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined(obj=obj, name=argument)
        return self.getattr(obj, argument) if type(argument) is str else self.undefined(obj=obj, name=argument)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method of the dialect, its growth checked first."""
        kwargs.pop("_loop_vars", None)  # Jinja's own, for functions that ask for the context
        kwargs.pop("_block_vars", None)
        if isinstance(obj, Undefined):
            return obj(*args, **kwargs)
        for value in (*args, *kwargs.values()):
            self.budget.weigh(value)
        if obj in (self._range, self._zip, Namespace):
            return obj(*args, **kwargs)
        owner: Any = getattr(obj, "__self__", None)
        name = getattr(obj, "__name__", "")
        if name not in dialect.METHODS.get(type(owner), frozenset()):
            self._refuse(f"{type(obj).__name__} objects cannot be called")
        if type(owner) is str:
            self.budget.weigh(owner)
            if name in ("replace", "join"):
                return (self._replace if name == "replace" else self._join_with)(owner, *args, **kwargs)
        elif name in ("index", "pop"):
            self.budget.weigh(owner if name == "index" else len(owner))
        return obj(*args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """``+``, ``*`` and ``%`` with the size of their result checked first."""
        if operator == "+":
            self._pay_for(_length(left) + _length(right))
            return left + right
        if operator == "*":
            if isinstance(left, int) and isinstance(right, int):
                if left.bit_length() + right.bit_length() > _MOST_BITS:
                    raise LimitError("its numbers grow too large")
            elif isinstance(left, int) or isinstance(right, int):
                times, other = (left, right) if isinstance(left, int) else (right, left)
                self._pay_for(max(0, times) * _length(other))
            return left * right
        if isinstance(left, str):
            self._refuse("'%' formats no text here; use the filter 'format'")
        return left % right

    def _pay_for(self, length: int) -> None:
        if length > self.longest_output:
            raise LimitError("a value grows too long")
        self.budget.pay(1 + (length >> 3))

    def _refuse(self, reason: str) -> NoReturn:
        raise TemplateError(reason)

    # ---- functions and filters

    def _range(self, *bounds: int) -> range:
        made = range(*bounds)
        if len(made) > _MOST_RANGE:
            raise LimitError(f"range() goes over more than {_MOST_RANGE} numbers")
        return made

    def _zip(self, *columns: Any) -> Any:
        return _Lazy(list(zip(*(self._loop(column) for column in columns), strict=False)))

    def _loop(self, value: Any) -> list[Any]:
        """A list to loop over, paid for; changes to the original during the loop do not lengthen it."""
        items = list(value)
        self.budget.pay(1 + len(items))
        return items

    def _label(self, value: Any) -> Any:
        if isinstance(value, int | float) and value == -1:
            raise HiddenLabelError
        return value

    def _replace(self, text: str, old: str, new: str, count: int | None = -1) -> str:
        found = text.count(old)
        self._pay_for(len(text) + max(0, found * (len(new) - len(old))))
        return text.replace(old, new, -1 if count is None else count)

    def _replace_filter(self, value: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = (str(self.budget.weigh(part)) for part in (value, old, new))
        return self._replace(text, old, new, count)

    def _join_with(self, separator: str, items: Iterable[str]) -> str:
        items = list(items)
        self._pay_for(len(separator) * len(items) + sum(map(len, items)))
        return separator.join(items)

    def _make_filters(self) -> dict[str, Callable[..., Any]]:
        """The allow-listed filters; those of Jinja with their arguments weighed, their iterators made finite lists."""
        own: dict[str, Callable[..., Any]] = {
            "choice": lambda items: self._pick(self.budget.weigh(items)),
            "random": lambda items: self._pick(self.budget.weigh(items)),
            "shuffle": lambda items: self._draw().shuffle(self.budget.weigh(items)),
            "most_frequent": lambda items: _most_frequent(self.budget.weigh(items)),
            "replace": self._replace_filter,
            "join": self._join_filter,
            "format": self._format_filter,
            "round": self._round_filter,
            dialect.LOOP: self._loop,
            dialect.WEIGH: self.budget.weigh,
            dialect.LABEL: self._label,
        }
        jinja = {name: self._weighed(jinja_filters.FILTERS[name]) for name in dialect.FILTERS if name not in own}
        return {**jinja, **own}

    def _weighed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function`` with its arguments paid for first; a lazy result is computed, and stays a lazy one in kind."""

        def weighed(*args: Any, **kwargs: Any) -> Any:
            for value in args[skipped:]:
                self.budget.weigh(value)
            result = function(*args, **kwargs)
            if hasattr(result, "__next__"):
                result = _Lazy(self.budget.weigh(list(result)))
            return result

        passed = getattr(function, "jinja_pass_arg", None)
        skipped = 0 if passed is None else 1
        if passed is not None:
            weighed.jinja_pass_arg = passed  # type: ignore[attr-defined]
        return weighed

    def _pick(self, items: Any) -> Any:
        if isinstance(items, dict) or not hasattr(items, "__getitem__"):
            items = list(items)
        if not len(items):
            return self.undefined("there is nothing to choose from")
        return items[self._draw().below(len(items))]

    def _join_filter(self, items: Any, d: str = "", attribute: str | int | None = None) -> str:
        if attribute is not None:
            items = map(jinja_filters.make_attrgetter(self, attribute), items)
        texts = [str(self.budget.weigh(item)) for item in items]
        return self._join_with(str(d), texts)

    def _format_filter(self, value: Any, *args: Any, **kwargs: Any) -> str:
        text = str(self.budget.weigh(value))
        if _WIDE_FORMAT.search(text):
            raise LimitError("a format asks for too wide a field")
        for item in (*args, *kwargs.values()):
            self.budget.weigh(item)
        return text % (kwargs or args)

    def _round_filter(self, value: Any, precision: int = 0, method: Any = "common") -> Any:
        if abs(precision) > 20:
            raise LimitError("round() to more than 20 places")
        return jinja_filters.do_round(value, precision, method)


class _Lazy:
    """An iterator over finished work: true even if empty, as Jinja's generators are, and printed without an address."""

    def __init__(self, items: list[Any]) -> None:
        self._items = iter(items)

    def __iter__(self) -> _Lazy:
        return self

    def __next__(self) -> Any:
        return next(self._items)

    def __repr__(self) -> str:
        return "<iterator>"


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 1


def _most_frequent(items: Iterable[Any]) -> list[Any]:
    """The items that occur most often, first seen first."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return [item for item, count in counts.items() if count == most]
