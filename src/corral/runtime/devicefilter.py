"""Device rules as an eBPF program of type CGROUP_DEVICE: how cgroup v2 guards device nodes.

The program gets a context of three words (linux/bpf.h, struct bpf_cgroup_dev_ctx): access << 16 | type, major,
minor. It answers 1 to allow. Rules are exceptions to one default, so their order does not matter.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corral.runtime.resources import DeviceRules

_TYPES = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_LDX_W, _MOV_REG, _MOV_IMM, _AND_IMM, _RSH_IMM = 0x61, 0xBC, 0xB4, 0x54, 0x74
_JNE_IMM, _JNE_REG, _EXIT = 0x55, 0x5D, 0x95


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, dst | src << 4, offset, imm)


def compile_rules(rules: DeviceRules) -> bytes:
    """The program for these rules."""
    program = [
        _insn(_LDX_W, 2, 1, 0),  # r2 = type
        _insn(_AND_IMM, 2, imm=0xFFFF),
        _insn(_LDX_W, 3, 1, 0),  # r3 = access
        _insn(_RSH_IMM, 3, imm=16),
        _insn(_LDX_W, 4, 1, 4),  # r4 = major
        _insn(_LDX_W, 5, 1, 8),  # r5 = minor
    ]
    for rule in rules.rules():
        program += _exception(rule.kind, rule.major, rule.minor, rule.access, rules.allow_all)
    program += [_insn(_MOV_IMM, 0, imm=int(rules.allow_all)), _insn(_EXIT)]
    return b"".join(program)


def _exception(kind: str, major: int, minor: int, access: str, allow_all: bool) -> list[bytes]:
    """Instructions that return the opposite of the default if the request matches, else fall through."""
    mask = sum(_ACCESS[letter] for letter in access)
    tests: list[tuple[bool, int, int]] = [(True, 2, _TYPES[kind])]
    if major >= 0:
        tests.append((True, 4, major))
    if minor >= 0:
        tests.append((True, 5, minor))
    body: list[bytes] = []
    # An allowed request must ask for nothing outside the mask; a denied one only needs to touch it.
    if mask != 7:
        body += [_insn(_MOV_REG, 1, 3), _insn(_AND_IMM, 1, imm=mask)]
        body.append(_insn(0x15, 1, imm=0, offset=2) if allow_all else _insn(_JNE_REG, 1, 3, 2))
    body += [_insn(_MOV_IMM, 0, imm=int(not allow_all)), _insn(_EXIT)]
    jumps = [
        _insn(_JNE_IMM, register, offset=len(tests) - index - 1 + len(body), imm=value)
        for index, (_, register, value) in enumerate(tests)
    ]
    return jumps + body
