"""The mutants of a module: its syntax tree with one operator, number, condition, call or statement changed."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SWAPPED = {"minimum": "maximum", "maximum": "minimum", "min": "max", "max": "min", "any": "all", "all": "any"}
DROPPED = {"sqrt", "square", "exp", "log", "tanh", "arcsinh", "abs", "clip", "clone", "total", "scaled"}
"""Functions of which a mutant leaves the first argument, or the object whose method is called."""


class Mutant(NamedTuple):
    """Holds one mutant.

    Attributes:
        name: its line, what stood there and what stands there now.
        function: name of the outermost function that it lies in.
        line: on which that begins, with its decorators.
        tree: of the whole module.
    """

    name: str
    function: str
    line: int
    tree: ast.Module


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    """Yields what an expression may be replaced with."""
    if isinstance(node, ast.Compare):
        for position, op in enumerate(node.ops):
            for other in COMPARISONS[type(op)]:
                changed = copy.deepcopy(node)
                changed.ops[position] = other()
                yield changed
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS and not _is_text(node):
        yield ast.BinOp(node.left, OPERATORS[type(node.op)](), node.right)
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    elif isinstance(node, ast.UnaryOp):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant):
        yield from _constants(node.value)
    elif isinstance(node, ast.Call):
        yield from _calls(node)


def _is_text(node: ast.BinOp) -> bool:
    return any(isinstance(part, ast.JoinedStr | ast.Constant) and not _is_number(part) for part in ast.walk(node))


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _constants(value: object) -> Iterator[ast.expr]:
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield ast.Constant(value + 1)
    elif isinstance(value, float):
        yield ast.Constant(2.0 * value if value else 1.0)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in SWAPPED:
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Attribute):
            changed.func.attr = SWAPPED[name]
        else:
            changed.func = ast.Name(SWAPPED[name], ast.Load())
        yield changed
    elif name == "where" and len(node.args) == 3:
        yield ast.Call(node.func, [node.args[0], node.args[2], node.args[1]], node.keywords)
    elif name in DROPPED and (node.args or isinstance(node.func, ast.Attribute)):
        yield node.args[0] if node.args else node.func.value  # type: ignore[attr-defined]


def _statements(node: ast.stmt) -> Iterator[ast.stmt]:
    """Yields what a statement may be replaced with."""
    if isinstance(node, ast.If) and not _is_type_checking(node):
        yield ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield ast.Return(ast.Constant(None))
    elif (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)) or (
        isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.AugAssign):
        yield ast.Assign([node.target], node.value)
    elif isinstance(node, ast.Continue):
        yield ast.Pass()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_type_checking(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


Path = tuple[tuple[str, int | None], ...]
"""Fields and places in them that lead from a module to a node."""


class Site(NamedTuple):
    """Holds a node inside a function, the way to it, and the outermost function."""

    path: Path
    node: ast.AST
    function: ast.FunctionDef


def _sites(node: ast.AST, path: Path = (), function: ast.FunctionDef | None = None) -> Iterator[Site]:
    """Walks over what is executed in functions and is no message: not over annotations, defaults and what is raised."""
    if function is not None:
        yield Site(path, node, function)
    elif isinstance(node, ast.FunctionDef):
        function = node
    if isinstance(node, ast.Raise | ast.JoinedStr):
        return
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "decorator_list", "args") and not isinstance(node, ast.Call):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield from _sites(child, (*path, (field, index)), function)


def _replaced(tree: ast.Module, path: Path, new: ast.AST) -> ast.Module:
    tree = copy.deepcopy(tree)
    parent: ast.AST = tree
    for field, index in path[:-1]:
        parent = getattr(parent, field) if index is None else getattr(parent, field)[index]
    field, index = path[-1]
    if index is None:
        setattr(parent, field, new)
    else:
        getattr(parent, field)[index] = new
    return ast.fix_missing_locations(tree)


def mutants_of(source: str) -> list[Mutant]:
    r"""Makes all mutants of a module's functions, in the order of its lines.

    Args:
        source: of the module.

    Example:
        >>> [mutant.name for mutant in mutants_of("def f(x):\n    return x + 1\n")]
        ['2: return x + 1 -> return None', '2: x + 1 -> x - 1', '2: 1 -> 2']
    """
    tree = ast.parse(source)
    found = []
    for path, node, function in _sites(tree):
        if isinstance(node, ast.stmt):
            changes: Iterator[ast.AST] = _statements(node)
        elif isinstance(node, ast.expr):
            changes = _expressions(node)
        else:
            continue
        for new in changes:
            before, after = (_shortened(part) for part in (node, new))
            name = f"{node.lineno}: {before} -> {after}"
            line = min(part.lineno for part in (function, *function.decorator_list))
            found.append(Mutant(name, function.name, line, _replaced(tree, path, copy.deepcopy(new))))
    return found


def _shortened(node: ast.AST) -> str:
    """Writes a node in one line of at most 60 characters."""
    text = ast.unparse(ast.fix_missing_locations(copy.deepcopy(node))).splitlines()[0]
    return text if len(text) <= 60 else text[:57] + "..."
