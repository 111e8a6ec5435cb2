"""Parse, check and evaluate the expressions over columns that a YAML holds, without pandas' eval.

A served version carries a copy of this file and runs it where churnlab is not installed: it stands
alone.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Mapping
from functools import lru_cache, partial, reduce
from itertools import pairwise
from types import CodeType
from typing import Any

import numpy as np
import pandas as pd

try:
    from churnlab.errors import InputError
except ImportError:  # in a served version
    InputError = ValueError  # type: ignore[assignment,misc]

OPERATORS = (
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.USub, ast.UAdd),
    *(ast.Not, ast.Invert, ast.And, ast.Or, ast.In, ast.NotIn),
    *(ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)

FUNCTIONS: dict[str, np.ufunc] = {
    name: getattr(np, name)
    for name in (
        *("abs", "sqrt", "exp", "expm1", "log", "log1p", "log2", "log10"),
        *("floor", "ceil", "minimum", "maximum"),
        *("sin", "cos", "tan", "arcsin", "arccos", "arctan", "arctan2"),
        *("sinh", "cosh", "tanh", "arcsinh", "arccosh", "arctanh"),
    )
}


def _among(value: Any, members: list[Any]) -> Any:
    if len(members) <= 8 or np.ndim(value) == 0:
        return reduce(np.logical_or, [value == member for member in members], np.False_)
    known = {*members}
    return np.fromiter((cell in known for cell in value), bool, len(value))


WORDS = {ast.In: "in", ast.NotIn: "not in"}
MEANING: dict[str, Any] = {
    "__builtins__": {},
    "\0and": np.logical_and,
    "\0or": np.logical_or,
    "\0not": np.logical_not,
    "\0in": _among,
    "\0not in": lambda value, members: np.logical_not(_among(value, members)),
    **{f"\0{name}": function for name, function in FUNCTIONS.items()},
}
"""What compiled expressions call, by names that no column has."""

STRING_OR_COLUMN = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`(?P<column>[^`]+)`""")
"""A backtick within a text is part of the text, as in Plan in ['a`b']."""


def derive(
    frame: pd.DataFrame, expressions: Mapping[str, str], *, finite: bool = True
) -> pd.DataFrame:
    """Append one float64 column per expression, in order; a later one may use an earlier column.

    An expression is the part of pandas' eval that computes: columns (in backticks if the name is
    not a plain word), numbers, arithmetic, comparisons, ``and or not`` (also ``& | ~``),
    ``in [...]`` and the FUNCTIONS. pandas itself would take 3 ms per expression even for one row,
    and would let an expression call any method of a column, writing files included: a served model
    can afford neither.

    Raises InputError for an expression that cannot be read, needs a column that does not exist, or
    is not a finite number in some row (unless ``finite`` is false), and for a name that is taken.

    >>> members = pd.DataFrame({"visits": [8, 2], "weeks": [4, 4]})
    >>> derive(members, {"a_week": "visits / weeks", "rare": "a_week < 1"})
       visits  weeks  a_week  rare
    0       8      4     2.0   0.0
    1       2      4     0.5   1.0
    """
    names = list(frame.columns)
    known: dict[str, np.ndarray] = {}
    for name, expression in expressions.items():
        check_expression(name, expression, names)
        code, columns = compiled(str(expression))
        for column in columns:
            if column not in known:
                known[column] = _array(frame[column])
        used = {column: known[column] for column in columns}
        known[name] = _compute(_where(name, expression), code, used, len(frame), finite=finite)
        names.append(name)
    added = pd.DataFrame({name: known[name] for name in expressions}, index=frame.index)
    return pd.concat([frame, added], axis=1) if len(added.columns) else frame.copy()


def check_expression(name: str, expression: str, columns: Collection[str]) -> None:
    """Refuse an expression that cannot be read or needs another column, or a name that is taken."""
    where = _where(name, expression)
    if name in columns:
        raise InputError(
            f"{where}: there is a column {name} already; give the derived one another name."
        )
    if reason := unreadable(str(expression)):
        raise InputError(
            f"{where} cannot be read: {reason}. Write columns, "
            "numbers, arithmetic, comparisons, and, or, not, in [...], and the functions "
            f"{', '.join(FUNCTIONS)}."
        )
    needed = compiled(str(expression))[1]
    if missing := [column for column in needed if column not in columns]:
        several = len(missing) > 1
        raise InputError(
            f"{where} needs the column{'s' if several else ''} {', '.join(missing)}, which "
            f"{'do' if several else 'does'} not exist. The columns are "
            f"{', '.join(map(str, columns))}. "
            f"{'Choose features made for these columns, or correct' if name else 'Correct'} "
            "the expression."
        )


def unreadable(expression: str) -> str | None:
    """Return why an expression cannot be read, None if it can."""
    try:
        compiled(expression)
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        return str(getattr(error, "msg", None) or error)
    return None


def columns_in(expression: str) -> list[str]:
    """Return the columns that a readable expression needs, each once.

    >>> columns_in("Age + `Months left` < 30")
    ['Age', 'Months left']
    """
    return [*compiled(expression)[1]]


def select(frame: pd.DataFrame, columns: Mapping[str, str]) -> pd.DataFrame:
    """Return one float64 column per name and expression; ``Age: Age`` copies a column, as words if
    it holds words."""
    derived = derive(
        frame, {name: expression for name, expression in columns.items() if expression != name}
    )
    if missing := [name for name in columns if name not in derived.columns]:
        raise InputError(
            f"There is no column {', '.join(missing)}; the columns are "
            f"{', '.join(map(str, frame.columns))}."
        )
    selected = derived[list(columns)]
    numbers = selected.dtypes.map(lambda dtype: dtype.kind in "biuf")
    return selected.astype(dict.fromkeys(selected.columns[numbers], np.float64))


def evaluate(expression: str, frame: pd.DataFrame) -> np.ndarray:
    """Return the value of one expression in each row as float64, 1 and 0 for true and false.

    Raises InputError as ``derive`` does.

    >>> evaluate("Age >= 14 and Plan in ['basic']", pd.DataFrame({"Age": [9, 20], "Plan": "basic"}))
    array([0., 1.])
    """
    check_expression("", expression, frame.columns)  # a list of them costs their number each time
    code, columns = compiled(expression)
    used = {column: _array(frame[column]) for column in columns}
    return _compute(_where("", expression), code, used, len(frame))


def _where(name: str, expression: str) -> str:
    text = str(expression)
    shown = text if len(text) <= 300 else f"{text[:300]} ..."
    return f"The derived column {name} = {shown}" if name else f"The expression {shown}"


def _array(column: pd.Series) -> np.ndarray:
    return column.to_numpy(dtype=np.float64 if column.dtype.kind in "biuf" else object)


@lru_cache(maxsize=1024)
def compiled(expression: str) -> tuple[CodeType, list[str]]:
    """Return the code of an expression, to be evaluated with MEANING and columns, and the columns
    that it needs, each once.

    Raises ValueError or SyntaxError for an expression that is refused.
    """
    quoted: dict[str, str] = {}

    def as_word(found: re.Match[str]) -> str:
        column = found["column"]
        return quoted.setdefault(column, f"_quoted_{len(quoted)}") if column else found[0]

    text = STRING_OR_COLUMN.sub(as_word, expression)
    # As in pandas, & and | bind like "and" and "or": Age > 20 & Age < 30 needs no brackets.
    words = {"&": "and", "|": "or"}
    tokens = tokenize.generate_tokens(io.StringIO(" ".join(text.split("\n")).strip()).readline)
    tree = ast.parse(
        " ".join(words.get(token.string, token.string) for token in tokens).strip(), mode="eval"
    )
    nodes = list(ast.walk(tree.body))
    for node in nodes:
        _check_node(node)
    functions = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    used = [node for node in nodes if isinstance(node, ast.Name) and id(node) not in functions]
    columns = {key: column for column, key in quoted.items()}
    columns = {name.id: columns.get(name.id, name.id) for name in used}
    code = ast.fix_missing_locations(ast.Expression(_AsCode(columns).visit(tree.body)))
    return compile(code, "<expression>", "eval"), list(dict.fromkeys(columns.values()))


def _check_node(node: ast.AST) -> None:
    """Refuse what is not arithmetic: attributes, indexing, unknown functions, other Python."""
    match node:
        case ast.BinOp() | ast.UnaryOp() | ast.BoolOp() | ast.Name() | ast.Load():
            return
        case ast.Constant(value=bool() | int() | float() | str()):
            return
        case ast.Compare(ops=ops, comparators=others):
            for op, other in zip(ops, others, strict=True):
                if isinstance(op, ast.In | ast.NotIn) != isinstance(other, ast.List | ast.Tuple):
                    raise ValueError("'in' takes a list, as in x in [1, 2], and nothing else does")
            return
        case ast.List(elts=members) | ast.Tuple(elts=members):
            if all(isinstance(member, ast.Constant | ast.UnaryOp) for member in members):
                return
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            if name not in FUNCTIONS:
                raise ValueError(f"there is no function {name}")
            count = FUNCTIONS[name].nin
            if len(arguments) != count:  # numpy would write its result into one more
                raise ValueError(f"{name} takes {count} values, not {len(arguments)}")
            return
        case _ if type(node) in OPERATORS:
            return
    raise ValueError(f"'{ast.unparse(node) or type(node).__name__}' is not allowed")


def _compute(
    where: str, code: CodeType, columns: Mapping[str, np.ndarray], rows: int, *, finite: bool = True
) -> np.ndarray:
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(eval(code, MEANING, columns))
    except (TypeError, ValueError, ArithmeticError, RecursionError) as error:
        raise InputError(f"{where} cannot be computed: {error}.") from None
    if value.dtype.kind not in "biuf" or value.shape not in [(), (rows,)]:
        raise InputError(f"{where} does not give a number in each row.")
    result = np.broadcast_to(value.astype(np.float64), (rows,))
    if finite and not np.isfinite(result).all():
        broken = np.flatnonzero(~np.isfinite(result))
        given = ", ".join(f"{name} = {values[broken[0]]}" for name, values in columns.items())
        raise InputError(
            f"{where} is not a finite number in {len(broken)} of {rows} rows; the first is row "
            f"{broken[0]} ({given}). Write it so that every row has a value, for instance "
            "x / (y + 1) or log1p(x)."
        )
    return result


class _AsCode(ast.NodeTransformer):
    """Turn an expression into one that Python computes from columns under their own names."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.columns = columns

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.columns[node.id], ast.Load())

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return node if isinstance(node.value, str) else ast.Constant(float(node.value))  # type: ignore[arg-type]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        operand = self.visit(node.operand)
        if isinstance(node.op, ast.Not | ast.Invert):
            return _call("not", operand)
        return ast.UnaryOp(node.op, operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        word = "and" if isinstance(node.op, ast.And) else "or"
        return reduce(partial(_call, word), map(self.visit, node.values))

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        values = [self.visit(part) for part in (node.left, *node.comparators)]
        compared = [
            _call(WORDS[type(op)], *pair)
            if type(op) in WORDS
            else ast.Compare(pair[0], [op], [pair[1]])
            for op, pair in zip(node.ops, pairwise(values), strict=True)
        ]
        return reduce(partial(_call, "and"), compared)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        assert isinstance(node.func, ast.Name)
        return _call(node.func.id, *map(self.visit, node.args))


def _call(name: str, *arguments: Any) -> ast.AST:
    return ast.Call(ast.Name(f"\0{name}", ast.Load()), [*arguments], [])
