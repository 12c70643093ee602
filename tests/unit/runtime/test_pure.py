"""Plans, mount options, resources, checks, failures and command lines: values in, values out."""

from __future__ import annotations

import copy
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.runtime import arguments, devicefilter, options, plan, resources, template, validate
from corral.runtime.failure import Failure

# -- failure -----------------------------------------------------------------------------------------------------


@given(st.text(max_size=30), st.integers(0, 200), st.text(max_size=300), st.text(max_size=100))
def test_a_failure_survives_the_pipe(stage: str, number: int, path: str, detail: str) -> None:
    failure = Failure(stage, number, path, detail)
    again = Failure.from_bytes(failure.to_bytes())
    assert again.args == tuple(
        value.replace("\0", "?") if isinstance(value, str) else value for value in (stage, number, path, detail)
    )
    assert len(failure.to_bytes()) < 4096


@given(st.binary())
def test_damaged_reports_are_failures_too(data: bytes) -> None:
    assert isinstance(Failure.from_bytes(data.decode("latin-1").encode()), Failure)


# -- options -----------------------------------------------------------------------------------------------------


def test_later_words_win_and_the_rest_is_data() -> None:
    parsed = options.parse_options(["ro", "nosuid", "rw", "size=1m", "rslave", "mode=755"])
    assert parsed.flags == 2
    assert parsed.cleared == 1
    assert parsed.data == "size=1m,mode=755"
    assert parsed.propagation == 0x80000 | 0x4000


def test_attributes_of_binds() -> None:
    assert options.parse_options(["ro", "nodev"]).attributes() == (1 | 4, 0)
    assert options.parse_options(["exec", "noatime"]).attributes() == (0x10, 8 | 0x70)
    parsed = options.parse_options(["rro", "rrw", "rnosuid"])
    assert (parsed.recursive_set, parsed.recursive_clear) == (2, 1)


def test_known_words_are_understood() -> None:
    for word in options.known_words():
        assert options.parse_options([word]).data == ""


# -- plan --------------------------------------------------------------------------------------------------------


def _facts(**changes: Any) -> plan.Facts:
    values: dict[str, Any] = {
        "cgroup_version": 1,
        "cgroup_mounts": [("cpu,cpuacct", "/cg/cpu/x"), ("systemd", "/cg/systemd/x")],
        "new_cgroup_ns": True,
        "user_ns": False,
    }
    return plan.Facts(**{**values, **changes})


def test_mounts_come_first_then_devices_then_links() -> None:
    built = plan.build(template.default_spec(), _facts())
    kinds = [type(op).__name__ for op in built.early]
    assert kinds.index("Node") > max(index for index, kind in enumerate(kinds) if kind == "Filesystem")
    assert kinds.index("Link") > max(index for index, kind in enumerate(kinds) if kind == "Node")
    assert built.late[-1].describe() == "read-only /"
    assert all(built.describe())


def test_cgroup_mounts_of_version_one() -> None:
    built = plan.build(template.default_spec(), _facts())
    lines = [line for line in built.describe() if "/sys/fs/cgroup" in line]
    assert lines[0].startswith("mount tmpfs on /sys/fs/cgroup")
    assert any("data=none,name=systemd" in line for line in lines)
    assert "link /sys/fs/cgroup/cpu -> cpu,cpuacct" in lines
    assert lines[-1].startswith("remount /sys/fs/cgroup")
    binds = plan.build(template.default_spec(), _facts(new_cgroup_ns=False)).describe()
    assert any(line.startswith("bind /cg/cpu/x on /sys/fs/cgroup/cpu,cpuacct") for line in binds)


def test_a_bound_dev_is_left_alone() -> None:
    spec = template.default_spec()
    spec["mounts"].append({"destination": "/dev/", "source": "/dev", "type": "bind", "options": ["rbind"]})
    assert not [op for op in plan.build(spec, _facts()).early if isinstance(op, plan.Node)]


def test_own_devices_replace_the_default_ones() -> None:
    spec = template.default_spec()
    spec["linux"]["devices"] = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 5, "fileMode": 0o600}]
    nodes = [op for op in plan.build(spec, _facts()).early if isinstance(op, plan.Node) and op.path == "/dev/null"]
    assert [(node.minor, node.mode) for node in nodes] == [(5, 0o600)]


def test_mount_without_type_and_wrong_propagation() -> None:
    spec = template.default_spec()
    spec["mounts"].append({"destination": "/x", "source": "y"})
    with pytest.raises(Failure):
        plan.build(spec, _facts())
    with pytest.raises(Failure):
        plan.root_propagation("ro")


# -- resources ---------------------------------------------------------------------------------------------------


def test_version_one_writes() -> None:
    writes = resources.version1(
        {
            "memory": {"limit": 100, "swap": 200, "swappiness": 0},
            "cpu": {"shares": 2, "quota": 5, "period": 10, "cpus": "0-1"},
            "pids": {"limit": -1},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 7}]},
        }
    )
    assert ("memory", "memory.limit_in_bytes", "100") in writes
    assert ("memory", "memory.swappiness", "0") in writes
    assert ("pids", "pids.max", "max") in writes
    assert ("blkio", "blkio.throttle.read_bps_device", "8:0 7") in writes
    names = [name for _, name, _ in writes]
    assert names.index("memory.limit_in_bytes") < names.index("memory.memsw.limit_in_bytes")
    assert names.index("cpu.cfs_period_us") < names.index("cpu.cfs_quota_us")


def test_version_two_writes() -> None:
    writes = resources.version2(
        {
            "memory": {"limit": 100, "swap": 300},
            "cpu": {"shares": 1024, "period": 50000},
            "blockIO": {"weight": 1000, "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}]},
            "unified": {"memory.high": "90"},
        }
    )
    assert ("memory", "memory.swap.max", "200") in writes
    assert ("cpu", "cpu.weight", "39") in writes
    assert ("cpu", "cpu.max", "max 50000") in writes
    assert ("io", "io.weight", "default 10000") in writes
    assert ("io", "io.max", "8:0 wiops=max") in writes
    assert writes[-1] == ("memory", "memory.high", "90")


@pytest.mark.parametrize("bad", [{"memory": {"limit": 5, "swap": 3}}, {"memory": {"swap": 3}}])
def test_swap_below_memory(bad: dict[str, Any]) -> None:
    with pytest.raises(Failure):
        resources.version2(bad)


@given(st.integers(2, 262144), st.integers(2, 262144))
def test_weights_keep_the_order_and_the_range(one: int, other: int) -> None:
    first, second = sorted((one, other))
    assert 1 <= resources.shares_to_weight(first) <= resources.shares_to_weight(second) <= 10000


_rule = st.fixed_dictionaries(
    {"allow": st.booleans()},
    optional={
        "type": st.sampled_from("bc"),
        "major": st.integers(0, 3),
        "minor": st.integers(0, 3),
        "access": st.text("rwm", min_size=1, max_size=3),
    },
)


def _naive(rules: list[dict[str, Any]], kind: str, major: int, minor: int, letter: str) -> bool:
    """The last rule that speaks of the access decides."""
    allowed = True
    for rule in rules:
        if "type" not in rule or (
            rule["type"] == kind
            and rule.get("major") in (None, major)
            and rule.get("minor") in (None, minor)
            and letter in rule.get("access", "rwm")
        ):
            allowed = rule["allow"]
    return allowed


def _run(program: bytes, kind: str, major: int, minor: int, access: int) -> int:
    """Interpret the few eBPF instructions that the compiler uses."""
    registers = [0] * 10
    context = {0: access << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    code = [struct.unpack_from("<BBhi", program, offset) for offset in range(0, len(program), 8)]
    at = 0
    while True:
        operation, both, offset, imm = code[at]
        dst, src = both & 15, both >> 4
        at += 1
        if operation == 0x61:
            registers[dst] = context[offset]
        elif operation == 0xB4:
            registers[dst] = imm
        elif operation == 0xBC:
            registers[dst] = registers[src]
        elif operation == 0x54:
            registers[dst] &= imm
        elif operation == 0x74:
            registers[dst] >>= imm
        elif operation in (0x55, 0x5D, 0x15):
            value = registers[src] if operation == 0x5D else imm
            at += offset if (registers[dst] != value) == (operation != 0x15) else 0
        else:
            assert operation == 0x95
            return registers[0]


@given(st.lists(_rule, max_size=6), st.sampled_from("bc"), st.integers(0, 3), st.integers(0, 3))
def test_device_rules_and_their_program(rules: list[dict[str, Any]], kind: str, major: int, minor: int) -> None:
    rules = [rule if "type" in rule else {"allow": rule["allow"]} for rule in rules]
    try:
        found = resources.device_rules(rules, defaults=False)
    except Failure:
        return  # a hole in a wildcard: refused, for version 1 cannot say it
    if found is None:
        return
    program = devicefilter.compile_rules(found)
    for letter, bit in (("m", 1), ("r", 2), ("w", 4)):
        assert bool(_run(program, kind, major, minor, bit)) == _naive(rules, kind, major, minor, letter)


def test_default_devices_follow_a_denial() -> None:
    found = resources.device_rules([{"allow": False, "access": "rwm"}])
    assert found is not None
    writes = resources.device_writes(found)
    assert writes[0] == ("devices", "devices.deny", "a")
    assert ("devices", "devices.allow", "c 1:3 rwm") in writes


# -- validate ----------------------------------------------------------------------------------------------------


def test_the_template_is_valid() -> None:
    validate.check(template.default_spec())
    validate.check(template.rootless_spec(1000, 1000))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ociVersion", "2.0.0"),
        ("ociVersion", None),
        ("root", {}),
        ("mounts", {}),
        ("mounts", [{"type": "proc"}]),
        ("process.args", []),
        ("process.args", [1]),
        ("process.cwd", ""),
        ("process.apparmorProfile", "strict"),
        ("linux.namespaces", []),
        ("linux.namespaces", [{"type": "mount", "path": "/proc/1/ns/mnt"}]),
        ("linux.namespaces", [{"type": "mount"}, {"type": "user"}]),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}]),
        ("linux.sysctl", {"vm.swappiness": "1"}),
        ("linux.sysctl", {"kernel.hostname.x": "1"}),
        ("linux.devices", [{"path": "dev/x", "type": "c", "major": 1, "minor": 1}]),
        ("linux.devices", [{"path": "/dev/x", "type": "c"}]),
        ("linux.devices", [{"path": "/dev/x", "type": "z", "major": 1, "minor": 1}]),
        ("linux.intelRdt", {"closID": "x"}),
        ("linux.timeOffsets", {"monotonic": {"secs": 1}}),
    ],
)
def test_what_is_refused(path: str, value: Any) -> None:
    spec = copy.deepcopy(template.default_spec())
    *folders, name = path.split(".")
    target = spec
    for folder in folders:
        target = target[folder]
    target[name] = value
    with pytest.raises(Failure) as caught:
        validate.check(spec)
    assert caught.value.stage == "spec"


# -- arguments ---------------------------------------------------------------------------------------------------


def test_flags_in_every_spelling() -> None:
    known, short = {"root": True, "all": False}, {"a": "all"}
    parsed = arguments.parse(["--root", "/x", "id", "-a", "KILL"], known, short)
    assert (parsed.get("root"), parsed.on("all"), parsed.positional) == ("/x", True, ["id", "KILL"])
    assert arguments.parse(["-root=/y"], known, short).get("root") == "/y"
    assert not arguments.parse(["--all=false"], known, short).on("all")
    assert arguments.parse(["id", "-a"], known, short, interleaved=False).positional == ["id", "-a"]
    assert arguments.parse(["--", "-a"], known, short).positional == ["-a"]


@pytest.mark.parametrize("words", [["--what"], ["--root"], ["--all=maybe"]])
def test_wrong_flags(words: list[str]) -> None:
    with pytest.raises(arguments.UsageError):
        arguments.parse(words, {"root": True, "all": False}, {})


_PICKS = st.lists(
    st.fixed_dictionaries({
        "allow": st.just(True), "type": st.sampled_from("bc"), "major": st.integers(1, 2), "minor": st.integers(1, 2),
        "access": st.sampled_from(["r", "w", "rw", "rwm"]),
    }),
    max_size=5,
)  # fmt: skip


@given(before=_PICKS, after=_PICKS, base=st.booleans())
def test_what_differs_leads_from_some_device_rules_to_others(
    before: list[dict[str, Any]], after: list[dict[str, Any]], base: bool
) -> None:
    first = {"allow": base}
    old, new = (resources.device_rules([first, *rules], defaults=False) for rules in (before, after))
    assert old is not None and new is not None
    reached = {key: set(access) for key, access in old.exceptions.items()}
    for controller, file, text in resources.device_changes(old, new):
        kind, numbers, access = text.split()
        key = (kind, *map(int, numbers.split(":")))
        assert controller == "devices" and file in ("devices.allow", "devices.deny")
        held = reached.setdefault(key, set())  # type: ignore[arg-type]
        held ^= set(access)
    assert {key: access for key, access in reached.items() if access} == new.exceptions
