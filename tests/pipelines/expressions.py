"""The part of Azure Pipelines' expressions that our YAML uses.

https://learn.microsoft.com/azure/devops/pipelines/process/expressions
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

TEMPLATE = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
MACRO = re.compile(r"\$\(([\w.]+)\)")
_TOKEN = re.compile(r"\s*(?:'((?:[^']|'')*)'|([A-Za-z_]\w*)|([().,\[\]]))")

Functions = Mapping[str, Callable[..., Any]]


class ExpressionError(Exception):
    """The expression is not one that this evaluator understands, or names what does not exist."""


def evaluate(expression: str, values: Mapping[str, Any], functions: Functions | None = None) -> Any:
    """The value of an expression such as `and(succeeded(), eq(variables['a.b'], 'true'))`. Raises ExpressionError."""
    parser = _Parser(expression, values, {**_FUNCTIONS, **(functions or {})})
    result = parser.expression()
    parser.expect_end()
    return result


def expand_template(node: Any, values: Mapping[str, Any]) -> Any:
    """A document with every `${{ }}` replaced. Raises ExpressionError."""
    if isinstance(node, dict):
        return {key: expand_template(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [expand_template(value, values) for value in node]
    if isinstance(node, str):
        return TEMPLATE.sub(lambda match: str(evaluate(match[1], values)), node)
    return node


def expand_runtime(text: str, values: Mapping[str, Any]) -> str:
    """The value of a variable that may be one `$[ ]`. Raises ExpressionError."""
    inside = re.fullmatch(r"\$\[(.*)\]", text)
    return str(evaluate(inside[1], values)) if inside else text


def expand_macros(text: str, variables: Mapping[str, str]) -> str:
    """A text with every `$(name)` replaced. An unknown name stays as it is, as on Azure."""
    return MACRO.sub(lambda match: variables.get(match[1].lower(), match[0]), text)


class _Parser:
    def __init__(self, text: str, values: Mapping[str, Any], functions: Functions) -> None:
        self._text, self._values, self._functions = text, values, functions
        self._tokens = list(_tokens(text))

    def expression(self) -> Any:
        literal, name, _ = self._next()
        if literal is not None:
            return literal.replace("''", "'")
        if not name:
            raise ExpressionError(f"not understood: {self._text}")
        if self._accept("("):
            return self._call(name)
        return self._members(_member(self._values, name))

    def expect_end(self) -> None:
        if self._tokens:
            raise ExpressionError(f"not understood to the end: {self._text}")

    def _call(self, name: str) -> Any:
        arguments: list[Any] = []
        while not self._accept(")"):
            arguments.append(self.expression())
            self._accept(",")
        if name not in self._functions:
            raise ExpressionError(f"no function {name}: {self._text}")
        return self._functions[name](*arguments)

    def _members(self, value: Any) -> Any:
        while True:
            if self._accept("."):
                value = _member(value, self._next()[1] or "")
            elif self._accept("["):
                value = _member(value, str(self.expression()))
                self._accept("]")
            else:
                return value

    def _next(self) -> Sequence[str | None]:
        if not self._tokens:
            raise ExpressionError(f"ends too early: {self._text}")
        return self._tokens.pop(0)

    def _accept(self, sign: str) -> bool:
        if self._tokens and self._tokens[0][2] == sign:
            self._tokens.pop(0)
            return True
        return False


def _tokens(text: str) -> Iterator[Sequence[str | None]]:
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if not match:
            raise ExpressionError(f"not understood from {text[position:]!r}: {text}")
        yield match.groups()
        position = match.end()


def _member(value: Any, name: str) -> Any:
    """What does not exist is empty, as on Azure; only the first name has to be known."""
    if not isinstance(value, Mapping):
        return ""
    return value.get(name, value.get(name.lower(), ""))


def _same(one: Any, other: Any) -> bool:
    return str(one).lower() == str(other).lower()


_FUNCTIONS: Functions = {
    "and": lambda *values: all(values),
    "or": lambda *values: any(values),
    "not": lambda value: not value,
    "eq": _same,
    "ne": lambda one, other: not _same(one, other),
}
