"""Variables and quotes, as a shell has them: examples, and the shell itself as the judge."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.build import expand
from corral.build.problems import DockerfileError

VARIABLES = {"a": "A", "empty": "", "path": "/usr/local/lib/x.tar.gz", "two": "x y"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$a", "A"), ("${a}", "A"), ("$a$b", "A"), ("${a}b", "Ab"), ("$", "$"), ("a$", "a$"), ("\\$a", "$a"),
        ("'$a'", "$a"), ('"$a"', "A"), ('"\\$a"', "$a"), ("a\\ b", "a b"), ('"a\\b"', "a\\b"), ("x'y'\"z\"", "xyz"),
        ("${none:-d}", "d"), ("${empty:-d}", "d"), ("${empty-d}", ""), ("${none-d}", "d"), ("${a:-d}", "A"),
        ("${a:+d}", "d"), ("${empty:+d}", ""), ("${empty+d}", "d"), ("${none+d}", ""), ("${none:-$a}", "A"),
        ("${none:-${other:-deep}}", "deep"), ("${none:-'q'}", "q"), ("${a:?no}", "A"),
        ("${path#*/}", "usr/local/lib/x.tar.gz"), ("${path##*/}", "x.tar.gz"), ("${path%.*}", "/usr/local/lib/x.tar"),
        ("${path%%.*}", "/usr/local/lib/x"), ("${path#nothing}", "/usr/local/lib/x.tar.gz"),
        ("${path/l/L}", "/usr/Local/lib/x.tar.gz"), ("${path//l/L}", "/usr/LocaL/Lib/x.tar.gz"),
        ("${path//\\//-}", "-usr-local-lib-x.tar.gz"), ("${path/l?/_}", "/usr/_cal/lib/x.tar.gz"),
        ("${path/*/_}", "_"), ("${path//tar/$a}", "/usr/local/lib/x.A.gz"), ("$two", "x y"),
    ],
)  # fmt: skip
def test_words(text: str, result: str) -> None:
    assert expand.word(text, VARIABLES) == result


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${a", "missing '}'"),
        ("${}", "bad substitution"),
        ("${a:}", "unsupported modifier"),
        ("${a:x}", "unsupported modifier"),
        ("${a^}", "unsupported modifier"),
        ("${none?}", "none: is not allowed to be unset"),
        ("${none:?say so}", "none: say so"),
        ("'a", "single-quote"),
        ('"a', "double-quote"),
        ("${a/b", "missing"),
        ("${a#b", "missing '}'"),
        ("${x:-" * 200 + "}" * 200, "nested too deeply"),
    ],
)
def test_what_cannot_be_expanded(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError, match=reason):
        expand.word(text, VARIABLES)


def test_split_words() -> None:
    assert expand.words("80 $two 'a b' \"$two\" ${none} 1/udp", VARIABLES) == ["80", "x", "y", "a b", "x y", "1/udp"]


def test_another_escape() -> None:
    assert expand.word("`$a\\x", VARIABLES, "`") == "$a\\x"


def test_documents_keep_their_quotes() -> None:
    assert expand.raw_word("'$a' \"\\$a\" it's", VARIABLES) == "'A' \"$a\" it's"


def test_names() -> None:
    assert expand.names("$a ${b:-$c} '$d'") == {"a", "b", "c"}


def test_patterns_do_not_backtrack() -> None:
    assert expand.word("${x%" + "*a" * 50 + "b}", {"x": "a" * 5000}) == "a" * 5000


@given(st.text(st.sampled_from("$ab{}:-+?#%/*'\"\\ \n[]"), max_size=40))
def test_anything_is_either_expanded_or_refused(text: str) -> None:
    for how in (expand.word, expand.words, expand.raw_word):
        try:
            how(text, VARIABLES)
        except DockerfileError:
            pass
    expand.names(text)


SHELL = shutil.which("bash")
VALUES = st.text(st.sampled_from("ab/."), max_size=6)
OPERATORS = st.sampled_from(["#", "##", "%", "%%", ":-", "-", ":+", "+"])


@settings(max_examples=30, deadline=None)
@given(VALUES, OPERATORS, st.text(st.sampled_from("ab/.*?"), max_size=4))
@pytest.mark.skipif(SHELL is None, reason="there is no bash to compare with")
def test_as_the_shell_does(value: str, operator: str, pattern: str) -> None:
    expression = f"${{v{operator}{pattern}}}"
    environment = {"v": value, "PATH": os.environ["PATH"], "LC_ALL": "C"}
    run = subprocess.run(
        [SHELL or "", "-c", f'printf %s "{expression}"'], env=environment, capture_output=True, text=True, check=True
    )
    assert expand.word(expression, {"v": value}) == run.stdout
