"""The filter compiler against an interpreter of classic BPF and a direct reading of the profile."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.runtime import bpf, syscalls
from corral.runtime.failure import Failure

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x50000, 0
X86_64, I386 = 0xC000003E, 0x40000003
ENOSYS = ERRNO | 38


def interpret(program: bytes, arch: int, number: int, args: tuple[int, ...] = ()) -> int:
    """What the kernel would answer."""
    padded = [*args, *[0] * (6 - len(args))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *padded)
    code = [struct.unpack_from("<HBBI", program, offset) for offset in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        operation, jt, jf, k = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x05:
            at += k
        elif operation in (0x15, 0x25, 0x35):
            taken = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[operation]
            at += jt if taken else jf
        else:
            assert operation == 0x06
            return int(k)


def _compile(*rules: dict[str, Any], default: str = "SCMP_ACT_ERRNO", **more: Any) -> bytes:
    profile = {"defaultAction": default, "syscalls": list(rules), **more}
    return bpf.compile_profile(profile, "x86_64")[0]


def _holds(condition: dict[str, Any], args: tuple[int, ...]) -> bool:
    value, bound, second = args[condition["index"]], condition["value"], condition.get("valueTwo", 0)
    return {
        "SCMP_CMP_NE": value != bound,
        "SCMP_CMP_LT": value < bound,
        "SCMP_CMP_LE": value <= bound,
        "SCMP_CMP_EQ": value == bound,
        "SCMP_CMP_GE": value >= bound,
        "SCMP_CMP_GT": value > bound,
        "SCMP_CMP_MASKED_EQ": value & bound == second,
    }[condition["op"]]


def test_default_and_enosys_above_what_the_profile_knows() -> None:
    program = _compile({"names": ["read", "getpid"], "action": "SCMP_ACT_ALLOW"})
    assert interpret(program, X86_64, 0) == ALLOW
    assert interpret(program, X86_64, 39) == ALLOW
    assert interpret(program, X86_64, 1) == ERRNO | 1
    assert interpret(program, X86_64, 40) == ENOSYS
    assert interpret(program, I386, 0) == KILL
    assert interpret(program, X86_64, 0x40000000) == KILL


def test_a_permissive_default_stays_for_new_calls() -> None:
    program = _compile({"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS"}, default="SCMP_ACT_ALLOW")
    assert interpret(program, X86_64, 0) == 0x80000000
    assert interpret(program, X86_64, 4000) == ALLOW


def test_architectures_side_by_side() -> None:
    names = ["SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS"]
    program = _compile({"names": ["execve"], "action": "SCMP_ACT_ALLOW"}, architectures=names)
    assert interpret(program, X86_64, 59) == ALLOW
    assert interpret(program, I386, 11) == ALLOW
    assert interpret(program, X86_64, 0x40000000 + 520) == ALLOW
    assert interpret(program, I386, 10) == ERRNO | 1
    assert interpret(program, 0xC00000B7, 221) == ALLOW


def test_errno_and_default_errno() -> None:
    program = _compile({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}, defaultErrnoRet=13)
    assert interpret(program, X86_64, 0) == ERRNO | 38
    program = _compile({"names": ["write"], "action": "SCMP_ACT_ALLOW"}, defaultErrnoRet=13)
    assert interpret(program, X86_64, 0) == ERRNO | 13


def test_conditions_on_one_argument_are_alternatives() -> None:
    args = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2**40 + 5)]
    program = _compile({"names": ["getpid"], "action": "SCMP_ACT_ALLOW", "args": args})
    assert [interpret(program, X86_64, 39, (value,)) == ALLOW for value in (1, 2**40 + 5, 5, 2**40 + 1)] == [
        True,
        True,
        False,
        False,
    ]


def test_every_number_of_a_whole_table() -> None:
    table = syscalls.table("x86_64")
    allowed = {name for index, name in enumerate(sorted(table)) if index % 3}
    program = _compile({"names": sorted(allowed), "action": "SCMP_ACT_ALLOW"})
    highest = max(table[name] for name in allowed)
    for name, number in table.items():
        expected = ALLOW if name in allowed else ENOSYS if number > highest else ERRNO | 1
        assert interpret(program, X86_64, number) == expected, name


_words = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**64 - 1])
_condition = st.fixed_dictionaries(
    {"index": st.integers(0, 2), "op": st.sampled_from(bpf.OPERATORS), "value": _words, "valueTwo": _words}
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(_condition, max_size=3), min_size=1, max_size=4), st.lists(_words, min_size=3, max_size=3))
def test_conditions_mean_what_they_say(rules: list[list[dict[str, Any]]], words: list[int]) -> None:
    # Make equality reachable.
    values = [condition["value"] for rule in rules for condition in rule]
    candidates = [tuple(words), *[(value, value, value) for value in values]]
    program = _compile(
        *[
            {"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 + index, "args": rule}
            for index, rule in enumerate(rules)
        ],
        default="SCMP_ACT_ALLOW",
    )
    for args in candidates:
        assert interpret(program, X86_64, 39, args) == _expected(rules, args)


def _expected(rules: list[list[dict[str, Any]]], args: tuple[int, ...]) -> int:
    for index, rule in enumerate(rules):
        if not rule:
            continue
        repeated = len({condition["index"] for condition in rule}) < len(rule)
        outcome = [_holds(condition, args) for condition in rule]
        if any(outcome) if repeated else all(outcome):
            return ERRNO | 100 + index
    plain = [index for index, rule in enumerate(rules) if not rule]
    return ERRNO | 100 + plain[0] if plain else ALLOW


@pytest.mark.parametrize(
    "profile",
    [
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        {"defaultAction": ""},
        {"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1},
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL", "args": [{"index": 9, "op": "SCMP_CMP_EQ"}]}],
        },
    ],
)
def test_bad_profiles(profile: dict[str, Any]) -> None:
    with pytest.raises(Failure) as caught:
        bpf.compile_profile(profile, "x86_64")
    assert caught.value.stage == "spec"


def test_flags() -> None:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/x", "flags": []}
    assert bpf.compile_profile(profile, "x86_64")[1] == 8
    assert bpf.compile_profile({"defaultAction": "SCMP_ACT_ERRNO"}, "x86_64")[1] == 4
    assert bpf.compile_profile({"defaultAction": "SCMP_ACT_ALLOW"}, "x86_64") == (b"", 0)
