r"""Calculations in a derivation, checked one by one: "12*3 = 46", "\frac{12}{4} = 3", "5 apples x 3 = 15".

The text of a model is never evaluated as code: numbers, + - * / ^ and brackets are read into a tree of Python's grammar and computed
in fractions, with bounded exponents. What stands beside a variable, a function or a modulus is not checked.
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

_MAX_TOKENS, _MAX_SIDES = 60, 200  # of an expression, of a line
_MAX_POWER, _MAX_BASE = 12, 10**6

_REWRITES = tuple(
    (re.compile(pattern), to)
    for pattern, to in (
        (r"<<[^<>\n]{0,200}>>", ""),  # gsm8k's own notes of a calculation
        (r"\\\\|\\\[|\\\]|\\implies|\\Rightarrow|\\qquad", "\n"),
        (r"(?<=\d)\s?\\[dtc]?frac", " @ "),  # a mixed number, or a product
        (r"(?<=[\w)%])(?:\s|\\?\$|\\[)\]])+(?=\\boxed)", "\n"),  # the answer after a result, which is not its mixed number
        (r"(?<==)\s?\*\*([^*\n]{1,40})\*\*", r" \1"),  # a result in bold
        (r"(?<![\d)\s])\*\*|\*\*(?![\d\s(])", ""),  # bold
        (r"\\[dtc]?frac\s?\{([\d., ]{1,20})\}\s?\{([\d., ]{1,20})\}", r"((\1)/(\2))"),
        (r"\\(?:times|cdot|ast)(?![A-Za-z])|[\u00d7\u00b7\u22c5]|(?<=[\d)%a-z]) [xX] (?=[\d($\\])|(?<=\d)[xX](?=\d)", "*"),
        (r"\\div(?![A-Za-z])|\u00f7", "/"),
        (r"[\u2212\u2013]", "-"),
        (r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()!]|\\?\$|[\u20ac\u00a3&]", ""),
        (r"\\[,;: ]|\\q?quad(?![A-Za-z])|\\(?=%)", " "),
        (r"\{,\}", ","),
        (r"\^\s?\{\s?(\d{1,2})\s?\}", r"^\1"),
        (r"\\boxed\s?\{(-?[\d.,]{1,20})\}", r"\1"),
        (r"\\(?:text|mathrm|mbox)\s?\{([^{}\n]{0,40})\}", r" \1 "),
    )
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,15})(?:\.\d{1,12})?|\.\d{1,12})|(?P<operator>\*\*|[-+*/^])|(?P<bracket>[()])"
    r"|(?P<percent>%)|(?P<word>[A-Za-z]{2,}'?s?)|(?P<end>[.,:;!?]*(?=\s|\Z))|(?P<other>\S))"
)
_JOINS = frozenset(("and", "or", "so", "then", "thus", "hence", "is", "are", "but", "we", "get"))  # not a unit: "39 and -11+50"
# Two of these beside each other may be converted (2 hours + 30 minutes = 150 minutes); a cent is a part of a "$".
_CONVERTED = re.compile(
    r"(sec|min|hour|hr|day|week|month|year|inch|inches|foot|feet|ft|yard|mile|mm|cm|meter|km|gram|kg|ounce|pound|ml|liter|dollar|cent|dozen)"
    r"(?:ond|ute)?s?"
)
_REMAINDER = re.compile(r"with|rem(?:ainder|aining|ains)?")
_OF_PERCENT = re.compile(r"[+-][\d.,]+%(?![*/(])")
_OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Calculation:
    """An equation of numbers as it was written, and what its left side is."""

    text: str  # "12*3=46"
    computed: Fraction
    stated: Fraction
    is_right: bool


@dataclass(frozen=True)
class _Token:
    kind: str  # the name of a group of _TOKEN
    text: str
    follows_space: bool


def calculations(text: str) -> list[Calculation]:
    """Return the calculations in a text that can be checked, in order."""
    for pattern, to in _REWRITES:
        text = pattern.sub(to, text)
    return [made for line in text.split("\n") if "=" in line for made in _in_line(line)]


def _in_line(line: str) -> Iterator[Calculation]:
    if re.search(r"\bp?mod\b|[<>!:~]=|=[<>=]", line):
        return
    sides = [_tokens(side) for side in line.split("=")[:_MAX_SIDES]]
    for number, (left, right) in enumerate(pairwise(sides)):
        expression, result = _end_of(left, is_start=number == 0), _start_of(right)
        units = {unit[1] for token in left + right if token.kind == "word" and (unit := _CONVERTED.fullmatch(token.text.lower()))}
        if len(units) > 1 or "cent" in units:
            continue
        if expression and result and (made := _checked(expression, result)) is not None:
            yield made


def _tokens(text: str) -> list[_Token]:
    return [
        _Token(found.lastgroup, found[found.lastgroup], found[0][:1].isspace())
        for found in _TOKEN.finditer(text)
        if found.lastgroup is not None and found[0].strip()
    ]


def _end_of(tokens: list[_Token], is_start: bool) -> list[_Token]:
    """Return the expression that a left side ends with, without its units; nothing where it is only a part of a longer one."""
    found: list[_Token] = []
    at = len(tokens)
    while at:
        at -= 1
        token = tokens[at]
        if token.kind == "other" or len(found) > _MAX_TOKENS:
            return []
        if token.kind == "end":
            return _whole(found)
        if token.kind != "word":
            found.insert(0, token)
            continue
        words = {token.text}
        while at and tokens[at - 1].kind == "word":
            at -= 1
            words.add(tokens[at].text)
        before = "end" if not at or words & _JOINS else tokens[at - 1].kind
        if before == "operator" or (found and (found[0].text == "^" or (found[0].text == "(" and not found[0].follows_space))):
            return []  # "apples + 3 * 4", "feet^2", "sqrt(16)"
        if before != "number" or (found and (found[0].kind == "number" or found[0].text == "(")):
            return _whole(found)
    if found and found[0].text == "-" and is_start and len(found) > 1 and found[1].follows_space:
        return found[1:]  # the dash of a list
    return [] if found and found[0].text in "+*/^" else found


def _whole(found: list[_Token]) -> list[_Token]:
    """Return the expression after a word, nothing where it goes on from there: "the books - 135"."""
    is_sign = len(found) > 1 and found[0].text == "-" and not found[1].follows_space
    return [] if found and found[0].kind == "operator" and not is_sign else found


def _start_of(tokens: list[_Token]) -> list[_Token]:
    """Return the expression that a right side begins with, without its units; nothing where a variable follows."""
    found: list[_Token] = []
    for at, token in enumerate(tokens[:_MAX_TOKENS]):
        if token.text in ("R", "r") or _REMAINDER.fullmatch(token.text):
            return []
        if token.kind == "word":
            after = next((later for later in tokens[at:] if later.kind != "word"), None)
            if after is None or after.kind not in ("operator", "bracket") or after.text in "(^":
                return found
        elif token.kind == "end":
            return found
        elif token.kind == "other":
            return found if token.follows_space and token.text not in "\\_^{[@" else []
        else:
            found.append(token)
    return found


def _checked(expression: list[_Token], result: list[_Token]) -> Calculation | None:
    written = "".join(token.text for token in expression)
    if not any(token.kind == "operator" for token in expression[1:]) or _has_neighbours(expression) or _has_neighbours(result):
        return None
    if _OF_PERCENT.search(written) and written.count("%") < sum(token.kind == "number" for token in expression):
        return None  # 100 - 20% = 80
    first = result[1] if result[0].text == "-" and len(result) > 1 else result[0]
    computed, value = evaluate(written), evaluate("".join(token.text for token in result))
    if computed is None or value is None or first.kind != "number":
        return None
    digits = first.text.replace(",", "")
    stated = Fraction(digits) * (-1 if result[0].text == "-" else 1)
    values = [stated, value]  # "3*4 = 12 + 5 = 17" goes on from 12
    if any(token.kind == "percent" for token in [*expression, *result]):
        values += [stated * 100, stated / 100]
    is_right = any(agree(value, computed, len(digits.partition(".")[2])) for value in values)
    return Calculation(f"{written}={'-' if stated < 0 else ''}{first.text}", computed, stated, is_right)


def _has_neighbours(tokens: list[_Token]) -> bool:
    """Return whether two numbers stand side by side (1 1/2), which is not a product."""
    return any(one.kind in ("number", "percent") and other.kind == "number" for one, other in pairwise(tokens))


def agree(stated: Fraction, computed: Fraction, places: int) -> bool:
    """Return whether they are equal, or the stated decimal is the computed one rounded or cut at its places."""
    unit = Fraction(1, 10**places)
    is_cut = abs(stated) < abs(computed) < abs(stated) + unit and stated * computed >= 0
    return stated == computed or (places > 0 and (2 * abs(stated - computed) <= unit or is_cut))


def evaluate(expression: str) -> Fraction | None:
    """Return the value of numbers, + - * / ^, percent and brackets; None for anything else, or what is too long or too large."""
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", expression).replace("%", "/100").replace("^", "**")
    plain = re.sub(r"(?<=[\d)])\(", "*(", re.sub(r"(?<![\d.])0+(?=\d)", "", plain))
    if len(plain) > 8 * _MAX_TOKENS or not re.fullmatch(r"[\d.+\-*/() ]+", plain) or "//" in plain:
        return None
    try:
        return _value(ast.parse(plain.strip(), mode="eval").body, plain.strip())
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.AST, text: str) -> Fraction:
    if isinstance(node, ast.Constant):
        return Fraction(text[node.col_offset : node.end_col_offset])  # exact: 0.1 is a tenth
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, text)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp):
        left, right = _value(node.left, text), _value(node.right, text)
        is_small = abs(right) <= _MAX_POWER and max(abs(left), left.denominator) <= _MAX_BASE
        if isinstance(node.op, ast.Pow) and right.denominator == 1 and is_small:
            return Fraction(left ** int(right))
        if type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](left, right)
    raise ValueError("not a calculation")
