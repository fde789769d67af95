"""A Python file as the rules see it: its tree, what its names mean, which lines a comment excuses. Pure."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from engine.parsing import parse
from engine.reproduce.linting.finding import MARK

# A file that imports one of these works on data.
DATA = frozenset({
    "catboost", "cudf", "dask", "datasets", "duckdb", "flax", "imblearn", "jax", "keras", "lightgbm",
    "lightning", "nltk", "numpy", "pandas", "polars", "pyarrow", "pyspark", "pytorch_lightning", "scipy",
    "sklearn", "spacy", "statsmodels", "tensorflow", "torch", "transformers", "xgboost"})
TRAINS = frozenset({"fit", "fit_transform", "fit_predict", "partial_fit", "backward", "train_on_batch",
                    "minimize_loss"})


@dataclass(frozen=True)
class Call:
    """A call, with the full dotted name of what is called ("numpy.random.rand"), as far as imports tell."""

    node: ast.Call
    name: str

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]

    def given(self, keyword: str) -> ast.expr | None:
        """The value of a keyword argument; None if it is not given or is the constant None."""
        value = next((one.value for one in self.node.keywords if one.arg == keyword), None)
        return None if isinstance(value, ast.Constant) and value.value is None else value

    @property
    def spread(self) -> bool:
        """Whether arguments come from a dict or list, which may hold anything."""
        return any(one.arg is None for one in self.node.keywords) or any(
            isinstance(one, ast.Starred) for one in self.node.args)


class Source:
    """One file, `path` relative to the project. Raises SyntaxError or ValueError for what is not Python."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = parse(text)
        self.excused, self.comments = _comments(text)
        self.lines = text.splitlines()

    @cached_property
    def imports(self) -> dict[str, str]:
        """Local name to full name, of every import in the file. Relative ones are resolved."""
        found: dict[str, str] = {}
        package = PurePosixPath(self.path).parent.parts
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    if one.asname:
                        found[one.asname] = one.name
                    else:
                        top = one.name.partition(".")[0]
                        found[top] = top
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package[:len(package) - node.level + 1]
                    base = ".".join((*above, base) if base else above)
                for one in node.names:
                    found[one.asname or one.name] = f"{base}.{one.name}" if base else one.name
        return found

    @cached_property
    def modules(self) -> frozenset[str]:
        """Every module the file imports, or may: `from a import b` names a and a.b."""
        found = set(self.imports.values())
        found |= {name.rpartition(".")[0] for name in found}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {one.name for one in node.names}
        return frozenset(found)

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def calls(self) -> list[Call]:
        """Every call whose target is a plain dotted name, in the order of lines."""
        found = [Call(node, name) for node in ast.walk(self.tree) if isinstance(node, ast.Call)
                 and (name := self.name_of(node.func))]
        return sorted(found, key=lambda one: (one.node.lineno, one.node.col_offset))

    @property
    def on_data(self) -> bool:
        return any(name.partition(".")[0] in DATA for name in self.modules)

    @property
    def trains(self) -> bool:
        """Whether it calls what learns: `.fit(`, `.backward(`, or a library's `train(`."""
        return any(isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
                   and node.func.attr in TRAINS for node in ast.walk(self.tree)) or any(
            call.last == "train" and call.name.partition(".")[0] in DATA for call in self.calls)

    def name_of(self, node: ast.expr) -> str:
        """The full dotted name of an expression such as `np.random.rand`; "" for any other expression. What
        was not imported keeps its own name: `frame.sample`."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return ""
        return ".".join([self.imports.get(node.id, node.id), *reversed(parts)])

    def imported(self, node: ast.expr) -> bool:
        """Whether a dotted expression begins with an imported name."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.imports

    def is_excused(self, node: ast.AST) -> bool:
        """Whether a comment excuses it: on one of its lines or its statement's, or alone on the line before
        its statement."""
        statement = node
        while not isinstance(statement, ast.stmt) and statement in self.parents:
            statement = self.parents[statement]
        first = getattr(statement, "lineno", 1)
        # Of a block only its head: an excuse on a function's last line is not for its first.
        own = node if hasattr(statement, "body") else statement
        last = max(getattr(own, "end_lineno", first) or first, getattr(node, "end_lineno", first) or first)
        if self.excused & set(range(first, last + 1)):
            return True
        above = first - 1
        while above in self.comments:
            if above in self.excused:
                return True
            above -= 1
        return False

    def documentation(self) -> Iterator[ast.AST]:
        """The string constants that are docstrings or stand alone."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant | ast.JoinedStr):
                yield node.value


def _comments(text: str) -> tuple[frozenset[int], frozenset[int]]:
    """The lines with an excuse, and the lines that are nothing but a comment."""
    excused, alone = set(), set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                if MARK in token.string:
                    excused.add(token.start[0])
                if token.line[:token.start[1]].strip() == "":
                    alone.add(token.start[0])
    except (tokenize.TokenError, IndentationError) as error:
        raise SyntaxError(str(error)) from error
    return frozenset(excused), frozenset(alone)
