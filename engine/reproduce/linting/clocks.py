"""What differs from run to run without being random: the clock, the order of files, the hash of text. Pure.

Looked for in code that trains (it calls `.fit(` or its like) and in what that imports. A clock that only
measures how long something took, or is printed, is no finding.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from engine.reproduce.linting.finding import Finding
from engine.reproduce.linting.source import Call, Source

# By name: at how many arguments it no longer reads the clock.
CLOCKS = {"time.time": 1, "time.time_ns": 1, "time.localtime": 1, "time.gmtime": 1, "time.ctime": 1,
          "time.strftime": 2, "datetime.datetime.now": 9, "datetime.datetime.utcnow": 9,
          "datetime.datetime.today": 9, "datetime.date.today": 9, "pandas.Timestamp.now": 9,
          "pandas.Timestamp.today": 9, "pandas.Timestamp.utcnow": 9}
LISTINGS = frozenset({"os.listdir", "os.scandir", "glob.glob", "glob.iglob", "os.walk"})
METHODS = frozenset({"iterdir", "glob", "rglob"})
# Where the order is put right, or does not matter.
SETTLES = frozenset({"sorted", "natsorted", "len", "any", "all", "set", "frozenset", "min", "max", "sum",
                     "next", "Counter", "dict"})
SAYS = frozenset({"print", "debug", "info", "warning", "error", "log", "write", "log_metric", "log_param",
                  "set_tag"})


def find(source: Source) -> Iterator[tuple[ast.AST, Finding]]:
    """Every finding of a file that trains, or that such a file imports."""
    for call in source.calls:
        if call.name in CLOCKS and source.imported(call.node.func) and _reads(call) \
                and not _measures(source, call.node):
            shown = ast.unparse(call.node.func)
            yield call.node, Finding(
                "clock", source.path, call.node.lineno, f"{shown}() in code that trains",
                "The result depends on when the run takes place.",
                "Give the moment as a parameter, which the manifest records.", group="clock")
        elif call.name == "hash" and not _in_hash(source, call.node):
            yield call.node, Finding(
                "order", source.path, call.node.lineno, "hash() gives text another number in each process",
                "What is chosen by it, such as a split, changes from run to run.",
                "Use hashlib, or start Python with PYTHONHASHSEED set.", group="hash")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and _lists(source, node) and not _settled(source, node):
            yield node, Finding(
                "order", source.path, node.lineno,
                f"{ast.unparse(node.func)} gives files in the order of the disk",
                "Rows come in another order on another machine, and so do splits and batches.",
                "Put sorted(…) round it.", group="files")


def _reads(call: Call) -> bool:
    return len(call.node.args) < CLOCKS[call.name]


def _measures(source: Source, node: ast.AST) -> bool:
    """Whether a clock's value only ends in a difference or is told: `time() - begun`, `print(now())`."""
    parent = source.parents.get(node)
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Sub):
        return True
    if isinstance(parent, ast.Assign) and all(_only_subtracted(source, one) for one in parent.targets):
        return True
    while parent is not None and not isinstance(parent, ast.stmt):
        if isinstance(parent, ast.Call) and _called(parent) in SAYS:
            return True
        parent = source.parents.get(parent)
    return False


def _only_subtracted(source: Source, target: ast.expr) -> bool:
    """Whether a name is read in its function, and each time only told or in a subtraction. An attribute may
    be read in another file: of one that is not read here nothing is said."""
    scope: ast.AST = source.tree
    if isinstance(target, ast.Name):
        scope = target
        while scope in source.parents and not isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            scope = source.parents[scope]
    key = _name(target)
    reads = [node for node in ast.walk(scope) if isinstance(node, ast.Name | ast.Attribute)
             and isinstance(node.ctx, ast.Load) and _name(node) == key]
    return bool(key) and (bool(reads) or isinstance(target, ast.Attribute)) \
        and all(_told(source, node) for node in reads)


def _told(source: Source, node: ast.AST) -> bool:
    parent = source.parents.get(node)
    while parent is not None and not isinstance(parent, ast.stmt):
        if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Sub):
            return True
        if isinstance(parent, ast.Call) and _called(parent) in SAYS:
            return True
        parent = source.parents.get(parent)
    return False


def _lists(source: Source, node: ast.Call) -> bool:
    name = source.name_of(node.func)
    if name in LISTINGS:
        return source.imported(node.func)
    return isinstance(node.func, ast.Attribute) and node.func.attr in METHODS \
        and any(one.partition(".")[0] == "pathlib" for one in source.modules)


def _settled(source: Source, node: ast.AST) -> bool:
    """Whether a call round it puts the order right, a set or dict takes it in, or `.sort()` follows."""
    child, parent = node, source.parents.get(node)
    while parent is not None and not isinstance(parent, ast.stmt):
        if isinstance(parent, ast.Call) and _called(parent) in SETTLES and child is not parent.func:
            return True
        if isinstance(parent, ast.SetComp | ast.DictComp):
            return True
        child, parent = parent, source.parents.get(parent)
    if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
        name = parent.targets[0].id
        return any(isinstance(one, ast.Call) and (
            source.name_of(one.func) == f"{name}.sort"
            or (_called(one) == "sorted" and bool(one.args) and _name(one.args[0]) == name))
            for one in ast.walk(source.tree))
    return False


def _called(node: ast.Call) -> str:
    return _name(node.func)


def _name(node: ast.expr) -> str:
    """The last part of `a` or `a.b`; "" for anything else."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _in_hash(source: Source, node: ast.AST) -> bool:
    parent: ast.AST | None = node
    while parent is not None:
        if isinstance(parent, ast.FunctionDef) and parent.name == "__hash__":
            return True
        parent = source.parents.get(parent)
    return False
