"""A seccomp profile of the specification as a classic BPF program.

    load the architecture, and per architecture:
      load the number; a binary search over runs of numbers with the same fate; at each leaf
        a return, or for a rule with conditions: the comparisons, a return, the next rule, ... the fallback

A rule with conditions applies where all of them hold; several conditions on the same argument mean "any of them"
(as libseccomp's callers have it). Rules with conditions are tried in the order of the profile, then the first rule
without. Numbers above the highest that the profile knows answer ENOSYS where the profile would refuse them, so that
programs fall back from a call that is newer than the profile instead of seeing it forbidden.
"""

from __future__ import annotations

import json
import struct

from corral.runtime import syscalls
from corral.runtime.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Condition = tuple[int, str, int, int]  # argument, operator, value, valueTwo
    Leaf = int | tuple[tuple[tuple[tuple[Condition, ...], int], ...], int]
    Code = list[tuple[int, int, int, int]]  # (code, jt, jf, k)

_EPERM, _EINVAL, _ENOSYS = 1, 22, 38
_LD_ABS, _AND, _RET, _JA = 0x20, 0x54, 0x06, 0x05
_JEQ, _JGT, _JGE = 0x15, 0x25, 0x35
_MAX_JUMP = 255
_MAX_PROGRAM = 4096
_X32_BIT = 0x40000000

_RET_KILL = 0
_RET_ERRNO = 0x50000
_RET_TRACE = 0x7FF00000
_RET_NOTIFY = 0x7FC00000
_RET_ALLOW = 0x7FFF0000
_RET_LOG = 0x7FFC0000
_ACTIONS = {
    "SCMP_ACT_KILL": _RET_KILL,
    "SCMP_ACT_KILL_THREAD": _RET_KILL,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x30000,
    "SCMP_ACT_ERRNO": _RET_ERRNO,
    "SCMP_ACT_TRACE": _RET_TRACE,
    "SCMP_ACT_ALLOW": _RET_ALLOW,
    "SCMP_ACT_LOG": _RET_LOG,
    "SCMP_ACT_NOTIFY": _RET_NOTIFY,
}
OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ",
)  # fmt: skip
# spec name: (AUDIT_ARCH, table)
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": (0xC000003E, "x86_64"),
    "SCMP_ARCH_X86": (0x40000003, "x86"),
    "SCMP_ARCH_X32": (0xC000003E, "x32"),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "aarch64"),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64", "i686": "SCMP_ARCH_X86"}
_KNOWN_ARCHITECTURES = (
    "X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32",
    "PPC", "PPC64", "PPC64LE", "S390", "S390X", "PARISC", "PARISC64", "RISCV64", "LOONGARCH64", "M68K", "SH",
    "SHEB",
)  # fmt: skip
FLAG_NEW_LISTENER = 8
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}


def compile_profile(profile: dict[str, Any], machine: str) -> tuple[bytes, int]:
    """(program, flags for seccomp(2)) of a `linux.seccomp` object; ("", 0) bytes if it filters nothing.

    Names of calls that an architecture does not have are passed over. Failure("spec") for unknown words.
    """
    default = _action(profile.get("defaultAction") or "", profile.get("defaultErrnoRet"))
    if default == _RET_NOTIFY:
        raise Failure("spec", _EINVAL, "linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY cannot be the default action")
    entries = _entries(profile, default)
    wanted = _wanted_architectures(profile, machine)
    flags = _filter_flags(profile, any(entry[2] == _RET_NOTIFY for entry in entries))
    if default == _RET_ALLOW and not entries:
        return b"", 0
    sections: dict[int, dict[str, Code]] = {}
    for name in wanted:
        audit, table = _ARCHITECTURES[name]
        sections.setdefault(audit, {})[table] = _search(_runs(entries, syscalls.table(table), default, table == "x32"))
    program: Code = [(_LD_ABS, 0, 0, 4)]
    for audit, tables in sections.items():
        program += _jump_unless_equal(audit, _section(tables))
    program.append((_RET, 0, 0, _RET_KILL))
    if len(program) > _MAX_PROGRAM:
        raise Failure("spec", _EINVAL, "linux.seccomp", "the profile needs more instructions than the kernel takes")
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program), flags


def _filter_flags(profile: dict[str, Any], notify: bool) -> int:
    names = profile.get("flags")
    if names is None:
        flags = _FLAGS["SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    else:
        flags = 0
        for name in names:
            if name not in _FLAGS:
                raise Failure("spec", _EINVAL, "linux.seccomp.flags", f"unknown flag {name}")
            # A container starts with one thread: there is nothing to synchronise, and TSYNC excludes a listener.
            flags |= _FLAGS[name] if _FLAGS[name] != 1 else 0
    if notify:
        if not profile.get("listenerPath"):
            raise Failure("spec", _EINVAL, "linux.seccomp.listenerPath", "SCMP_ACT_NOTIFY needs a listener")
        flags |= FLAG_NEW_LISTENER
    return flags


def _wanted_architectures(profile: dict[str, Any], machine: str) -> list[str]:
    """The native architecture, and what the profile names besides; those that cannot run here never match anyway."""
    native = _NATIVE.get(machine)
    if native is None:
        raise Failure("seccomp", _ENOSYS, machine, "no system call table for this machine")
    wanted = [native]
    for name in profile.get("architectures") or []:
        if name.removeprefix("SCMP_ARCH_") not in _KNOWN_ARCHITECTURES:
            raise Failure("spec", _EINVAL, "linux.seccomp.architectures", f"unknown architecture {name}")
        if name in _ARCHITECTURES and name not in wanted:
            wanted.append(name)
    return wanted


def _action(name: str, errno_ret: int | None) -> int:
    if name not in _ACTIONS:
        raise Failure("spec", _EINVAL, "linux.seccomp", f"unknown action {name!r}")
    action = _ACTIONS[name]
    if action in (_RET_ERRNO, _RET_TRACE):
        return action | ((_EPERM if errno_ret is None else errno_ret) & 0xFFFF)
    if errno_ret is not None and errno_ret != 0:
        raise Failure("spec", _EINVAL, "linux.seccomp", f"{name} takes no errnoRet")
    return action


def _entries(profile: dict[str, Any], default: int) -> list[tuple[list[str], list[tuple[Condition, ...]], int]]:
    """(names, alternatives of conditions, action) of each rule that differs from the default."""
    entries = []
    for rule in profile.get("syscalls") or []:
        action = _action(rule.get("action") or "", rule.get("errnoRet"))
        names = rule.get("names") or []
        if action == _RET_NOTIFY and "write" in names:
            raise Failure("spec", _EINVAL, "linux.seccomp", "SCMP_ACT_NOTIFY cannot be used for the write syscall")
        if action != default:
            entries.append((names, _alternatives(rule.get("args") or []), action))
    return entries


def _alternatives(args: list[dict[str, Any]]) -> list[tuple[Condition, ...]]:
    conditions = []
    for arg in args:
        if arg.get("op") not in OPERATORS or not 0 <= arg.get("index", -1) <= 5:
            raise Failure("spec", _EINVAL, "linux.seccomp", f"bad argument condition {arg}")
        conditions.append((arg["index"], arg["op"], arg.get("value") or 0, arg.get("valueTwo") or 0))
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(conditions)]


def _runs(entries: list[Any], table: dict[str, int], default: int, x32: bool) -> list[tuple[int, Leaf]]:
    """[(first number, fate)], each run up to the next."""
    plain: dict[int, int] = {}
    conditional: dict[int, list[tuple[tuple[Condition, ...], int]]] = {}
    for names, alternatives, action in entries:
        for name in names:
            number = table.get(name)
            if number is None:
                continue
            if alternatives == [()]:
                plain.setdefault(number, action)
            else:
                conditional.setdefault(number, []).extend((conditions, action) for conditions in alternatives)
    fates: dict[int, Leaf] = dict(plain)
    for number, rules in conditional.items():
        fates[number] = (tuple(rules), plain.get(number, default))
    base = _X32_BIT if x32 else 0
    runs: list[tuple[int, Leaf]] = []
    following = 0
    for number in sorted(fates):
        if number > following:
            _extend(runs, base + following, default)
        _extend(runs, base + number, fates[number])
        following = number + 1
    refuses = default not in (_RET_ALLOW, _RET_LOG) and default & ~0xFFFF != _RET_TRACE
    _extend(runs, base + following, _RET_ERRNO | _ENOSYS if refuses and following else default)
    return runs


def _extend(runs: list[tuple[int, Leaf]], start: int, fate: Leaf) -> None:
    if not runs or runs[-1][1] != fate:
        runs.append((start, fate))


def _section(tables: dict[str, Code]) -> Code:
    """One architecture: the number, then its search; x86_64 and x32 differ by bit 30."""
    head: Code = [(_LD_ABS, 0, 0, 0)]
    if "x86_64" not in tables:
        return head + next(iter(tables.values()))
    x32 = tables.get("x32", [(_RET, 0, 0, _RET_KILL)])
    return head + _branch(_X32_BIT, tables["x86_64"], x32)


def _search(runs: list[tuple[int, Leaf]]) -> Code:
    """Binary search over the runs."""
    if len(runs) == 1:
        fate = runs[0][1]
        return [(_RET, 0, 0, fate)] if isinstance(fate, int) else _conditional(fate[0], fate[1])
    middle = len(runs) // 2
    return _branch(runs[middle][0], _search(runs[:middle]), _search(runs[middle:]))


def _branch(bound: int, below: Code, above: Code) -> Code:
    if len(below) <= _MAX_JUMP:
        return [(_JGE, len(below), 0, bound), *below, *above]
    return [(_JGE, 0, 1, bound), (_JA, 0, 0, len(below)), *below, *above]


def _jump_unless_equal(value: int, body: Code) -> Code:
    if len(body) <= _MAX_JUMP:
        return [(_JEQ, 0, len(body), value), *body]
    return [(_JEQ, 1, 0, value), (_JA, 0, 0, len(body)), *body]


def _conditional(rules: tuple[tuple[tuple[Condition, ...], int], ...], fallback: int) -> Code:
    code: Code = []
    for conditions, action in rules:
        block: Code = [(_RET, 0, 0, action)]
        for condition in reversed(conditions):
            block = _test(condition, len(block)) + block
        code += block
    # The number is no longer in the accumulator, but nothing after this looks at it.
    return [*code, (_RET, 0, 0, fallback)]


def _test(condition: Condition, rest: int) -> Code:
    """Fall through if the condition holds, else jump over the `rest` instructions that follow."""
    index, operator, value, value_two = condition
    low, high = 16 + 8 * index, 20 + 8 * index
    high_value, low_value = value >> 32 & 0xFFFFFFFF, value & 0xFFFFFFFF
    if operator == "SCMP_CMP_MASKED_EQ":
        code: Code = []
        if high_value or value_two >> 32:
            code = [(_LD_ABS, 0, 0, high), (_AND, 0, 0, high_value), (_JEQ, 0, rest + 3, value_two >> 32 & 0xFFFFFFFF)]
        return [*code, (_LD_ABS, 0, 0, low), (_AND, 0, 0, low_value), (_JEQ, 0, rest, value_two & 0xFFFFFFFF)]
    if operator == "SCMP_CMP_EQ":
        return [
            (_LD_ABS, 0, 0, high),
            (_JEQ, 0, rest + 2, high_value),
            (_LD_ABS, 0, 0, low),
            (_JEQ, 0, rest, low_value),
        ]
    if operator == "SCMP_CMP_NE":
        return [(_LD_ABS, 0, 0, high), (_JEQ, 0, 2, high_value), (_LD_ABS, 0, 0, low), (_JEQ, rest, 0, low_value)]
    # Ordered: the high words decide unless they are equal.
    last = _JGT if operator in ("SCMP_CMP_GT", "SCMP_CMP_LE") else _JGE
    if operator in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        return [
            (_LD_ABS, 0, 0, high),
            (_JGT, 3, 0, high_value),
            (_JEQ, 0, rest + 2, high_value),
            (_LD_ABS, 0, 0, low),
            (last, 0, rest, low_value),
        ]
    return [
        (_LD_ABS, 0, 0, high),
        (_JGT, rest + 3, 0, high_value),
        (_JEQ, 0, 2, high_value),
        (_LD_ABS, 0, 0, low),
        (last, rest, 0, low_value),
    ]


def actions() -> list[str]:
    """The actions that a profile may name."""
    return list(_ACTIONS)


def architectures() -> list[str]:
    """The architectures that are filtered; calls of others are refused outright."""
    return list(_ARCHITECTURES)


def flags() -> list[str]:
    """The flags that a profile may name."""
    return list(_FLAGS)


_compiled: dict[str, tuple[bytes, int]] = {}


def compile_cached(profile: dict[str, Any], machine: str) -> tuple[bytes, int]:
    """As `compile_profile`, remembered for the life of the process: containers differ little in their profiles."""
    key = machine + json.dumps(profile)
    found = _compiled.get(key)
    if found is None:
        found = _compiled[key] = compile_profile(profile, machine)
    return found
