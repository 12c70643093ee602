"""Go templates, as far as people use them in `--format`.

Fields, variables, pipelines, `if`/`else`/`with`/`range`/`end`, comments, `{{-` and `-}}`, comparison and logic,
`printf`, `index`, `slice`, `len`, and Docker's own `json`, `join`, `split`, `title`, `upper`, `lower`, `pad`,
`truncate`, `println`.
Values are what JSON gives; they print as Go prints maps, lists and nil.
"""

from __future__ import annotations

from corral import jsontext
from corral.cli.problems import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_BLOCKS = ("if", "range", "with")


class TemplateError(CliError):
    """A template that cannot be read, or that asks for something that is not there."""

    def __init__(self, text: str) -> None:
        super().__init__(f"template parsing error: template: {text}")
        self.detail = f"template: {text}"


class _Node:
    """A part of a template: text, an action, or a block with its branches."""

    __slots__ = ("body", "kind", "otherwise", "text", "words")

    def __init__(self, kind: str, text: str = "", words: list[str] | None = None) -> None:
        self.kind = kind
        self.text = text
        self.words = words or []
        self.body: list[_Node] = []
        self.otherwise: list[_Node] = []


class Template:
    """A template, read once: `render(value)` for each value."""

    def __init__(self, text: str) -> None:
        pieces = list(reversed(list(_pieces(text))))
        self._nodes, end = _parse(pieces)
        if end:
            raise TemplateError(f":1: unexpected {{{{{end[0]}}}}}")

    def render(self, value: Any) -> str:
        """The text for a value; raises TemplateError."""
        out: list[str] = []
        _render(self._nodes, value, {"$": value}, out)
        return "".join(out)


def _pieces(text: str) -> Iterator[tuple[bool, str]]:
    """(is action, text) in turn, with the blanks that `{{-` and `-}}` eat taken off."""
    position, eat = 0, False
    while True:
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        if eat:
            plain = plain.lstrip()
        if start < 0:
            yield False, plain
            return
        end = _action_end(text, start + 2)
        action = text[start + 2 : end]
        if action.startswith("- "):
            plain, action = plain.rstrip(), action[2:]
        eat = action.endswith(" -")
        if eat:
            action = action[:-2]
        yield False, plain
        if not action.strip().startswith("/*"):
            yield True, action.strip()
        position = end + 2


def _action_end(text: str, position: int) -> int:
    quote = ""
    while position < len(text):
        char = text[position]
        if quote:
            if char == "\\" and quote == '"':
                position += 1
            elif char == quote:
                quote = ""
        elif char in '"`':
            quote = char
        elif text.startswith("}}", position):
            return position
        position += 1
    raise TemplateError(":1: unclosed action")


def words_of(action: str) -> list[str]:
    """The words of an action; strings keep their quotes, `(`, `)`, `|`, `:=`, `=` and `,` are words."""
    words: list[str] = []
    position = 0
    while position < len(action):
        char = action[position]
        if char.isspace():
            position += 1
        elif char in '"`':
            end = position + 1
            while end < len(action) and action[end] != char:
                end += 2 if action[end] == "\\" and char == '"' else 1
            if end >= len(action):
                raise TemplateError(":1: unterminated quoted string")
            words.append(action[position : end + 1])
            position = end + 1
        elif action.startswith(":=", position):
            words.append(":=")
            position += 2
        elif char in "()|,=":
            words.append(char)
            position += 1
        else:
            end = position
            while (
                end < len(action)
                and not action[end].isspace()
                and action[end] not in '()|,="`'
                and action[end : end + 2] != ":="
            ):
                end += 1
            words.append(action[position:end])
            position = end
    return words


def _parse(pieces: list[tuple[bool, str]]) -> tuple[list[_Node], list[str]]:
    """Nodes up to an `else` or `end` (its words are the second value) or to the end."""
    nodes: list[_Node] = []
    while pieces:
        is_action, text = pieces.pop()
        if not is_action:
            if text:
                nodes.append(_Node("text", text))
            continue
        words = words_of(text)
        if not words:
            raise TemplateError(":1: missing value for command")
        if words[0] in ("end", "else"):
            return nodes, words
        if words[0] in _BLOCKS:
            nodes.append(_block(words, pieces))
        else:
            nodes.append(_Node("action", text, words))
    return nodes, []


def _block(words: list[str], pieces: list[tuple[bool, str]]) -> _Node:
    node = _Node(words[0], words=words[1:])
    node.body, end = _parse(pieces)
    if end[:1] == ["else"]:
        if len(end) > 1:  # else if, else with
            node.otherwise = [_block(end[1:], pieces)]
            return node
        node.otherwise, end = _parse(pieces)
    if end != ["end"]:
        raise TemplateError(":1: unexpected EOF")
    return node


def _render(nodes: list[_Node], dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    for node in nodes:
        match node.kind:
            case "text":
                out.append(node.text)
            case "action":
                _action(node, dot, variables, out)
            case "if":
                scope = dict(variables)
                chosen = node.body if truth(_pipeline(node.words, dot, scope)) else node.otherwise
                _render(chosen, dot, scope, out)
            case "with":
                scope = dict(variables)
                value = _pipeline(node.words, dot, scope)
                if truth(value):
                    _render(node.body, value, scope, out)
                else:
                    _render(node.otherwise, dot, scope, out)
            case _:
                _range(node, dot, variables, out)


def _action(node: _Node, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    value = _pipeline(node.words, dot, variables)
    if len(node.words) < 2 or node.words[1] not in (":=", "="):
        out.append(shown(value))


def _range(node: _Node, dot: Any, variables: dict[str, Any], out: list[str]) -> None:
    names, words = [], node.words
    if ":=" in words:
        place = words.index(":=")
        names, words = [word for word in words[:place] if word != ","], words[place + 1 :]
    value = _pipeline(words, dot, dict(variables))
    if isinstance(value, dict):
        items = [(key, value[key]) for key in sorted(value)]
    elif isinstance(value, int) and not isinstance(value, bool):
        items = [(index, index) for index in range(value)]
    elif isinstance(value, list | tuple) or value is None:
        items = list(enumerate(value or ()))
    else:
        raise TemplateError(f':1: executing "" at <{" ".join(words)}>: range can\'t iterate over {shown(value)}')
    if not items:
        _render(node.otherwise, dot, dict(variables), out)
    for key, item in items:
        scope = dict(variables)
        if len(names) == 1:
            scope[names[0]] = item
        elif len(names) == 2:
            scope[names[0]], scope[names[1]] = key, item
        _render(node.body, item, scope, out)


def _pipeline(words: list[str], dot: Any, variables: dict[str, Any]) -> Any:
    """The value of commands joined by `|`; an assignment sets its variable."""
    if len(words) > 1 and words[1] in (":=", "="):
        variables[words[0]] = _pipeline(words[2:], dot, variables)
        return variables[words[0]]
    value: Any = None
    for index, command in enumerate(_split(words)):
        if not command:
            raise TemplateError(":1: missing value for command")
        value = _command(command, dot, variables, [value] if index else [])
    return value


def _split(words: list[str]) -> list[list[str]]:
    """The commands between `|` outside parentheses."""
    commands: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "(") - (word == ")")
        if word == "|" and not depth:
            commands.append([])
        else:
            commands[-1].append(word)
    if depth:
        raise TemplateError(":1: unclosed left paren" if depth > 0 else ":1: unexpected right paren")
    return commands


def _command(words: list[str], dot: Any, variables: dict[str, Any], last: list[Any]) -> Any:
    from corral.cli import templatefunctions

    head = words[0]
    function = templatefunctions.FUNCTIONS.get(head)
    if function is not None:
        lazy = templatefunctions.LAZY.get(head)
        operands = list(_operands(words[1:]))
        if lazy is not None:
            return lazy(
                [lambda one=one: _operand(one, dot, variables) for one in operands] + [lambda: last[0]] * len(last)
            )
        arguments = [_operand(one, dot, variables) for one in operands] + last
        try:
            return function(*arguments)
        except (TypeError, ValueError, LookupError) as error:
            raise TemplateError(f':1: executing "" at <{head}>: error calling {head}: {error}') from None
    operands = list(_operands(words))
    if len(operands) != 1 or last:
        if head[0].isalpha():
            raise TemplateError(f':1: function "{head}" not defined')
        method = getattr(dot, "methods", {}).get(head[1:])
        if method is not None:
            return method(*[_operand(operand, dot, variables) for operand in operands[1:]])
        raise TemplateError(f':1: executing "" at <{head}>: can\'t give argument to non-function {head}')
    return _operand(operands[0], dot, variables)


def _operands(words: list[str]) -> Iterator[list[str]]:
    """Each operand: a word, or a parenthesised pipeline with the field that follows it."""
    position = 0
    while position < len(words):
        if words[position] != "(":
            yield [words[position]]
            position += 1
            continue
        depth, end = 1, position + 1
        while end < len(words) and depth:
            depth += (words[end] == "(") - (words[end] == ")")
            end += 1
        operand = words[position:end]
        if end < len(words) and words[end].startswith(".") and len(words[end]) > 1:
            operand.append(words[end])
            end += 1
        yield operand
        position = end


def _operand(words: list[str], dot: Any, variables: dict[str, Any]) -> Any:
    word = words[0]
    if word == "(":
        if words[-1] == ")":
            return _pipeline(words[1:-1], dot, variables)
        return _fields(_pipeline(words[1:-2], dot, variables), words[-1])
    if word == ".":
        return dot
    if word.startswith("."):
        return _fields(dot, word)
    if word.startswith("$"):
        name, period, rest = word.partition(".")
        if name not in variables:
            raise TemplateError(f':1: undefined variable "{name}"')
        return _fields(variables[name], f".{rest}") if period else variables[name]
    return _literal(word)


def _literal(word: str) -> Any:
    from corral.cli import templatefunctions

    if word[0] == '"':
        return _unquote(word[1:-1])
    if word[0] == "`":
        return word[1:-1]
    if word in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[word]
    try:
        return int(word, 0)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        pass
    if word in templatefunctions.FUNCTIONS:
        return templatefunctions.FUNCTIONS[word]()
    raise TemplateError(f':1: function "{word}" not defined')


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


def _unquote(text: str) -> str:
    if "\\" not in text:
        return text
    out, position = "", 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            out += _ESCAPES.get(text[position + 1], text[position : position + 2])
            position += 2
        else:
            out += text[position]
            position += 1
    return out


def _fields(value: Any, path: str) -> Any:
    """`.A.B` of a value."""
    for name in path[1:].split("."):
        if isinstance(value, dict):
            if name not in value:
                raise TemplateError(f':1:2: executing "" at <{path}>: map has no entry for key "{name}"')
            value = value[name]
        elif value is None or isinstance(value, jsontext.Nil):
            raise TemplateError(f':1:2: executing "" at <{path}>: nil pointer evaluating interface {{}}.{name}')
        else:
            raise TemplateError(
                f':1:2: executing "" at <{path}>: can\'t evaluate field {name} in type {type(value).__name__}'
            )
    return value


def truth(value: Any) -> bool:
    """Go's: empty and zero values are false."""
    return bool(value)


def shown(value: Any) -> str:
    """A value as Go's `{{.}}` prints it."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<no value>"
    if isinstance(value, jsontext.Nil):
        return value.text
    return nested(value)


def nested(value: Any) -> str:
    """A value inside of another."""
    if value is None:
        return "<nil>"
    if isinstance(value, jsontext.Nil):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{nested(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(nested(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}" if abs(value) < 1e21 and not value.is_integer() else f"{value:.0f}"
    return str(value)
