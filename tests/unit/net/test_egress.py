"""Egress lists as people write them, as decisions, and as rules."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.net import dnswire, egress, listed
from corral.net.egress import InvalidEgress, Rule, Service
from corral.net.gate import Gate
from corral.net.listed import Listed, Place, Resolved
from corral.net.model import Endpoint
from corral.net.refusals import parse as parse_packet

_LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_NAMES = st.builds(
    lambda star, labels: ("*." if star else "") + ".".join(labels),
    st.booleans(),
    st.lists(_LABELS, min_size=1, max_size=4),
)
_NETWORKS = st.one_of(
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)
_PORTS = st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted)
_SERVICES = st.one_of(
    st.sampled_from([Service(), Service("icmp"), Service("tcp")]),
    st.builds(lambda proto, ports: Service(proto, *ports), st.sampled_from(["", "tcp", "udp", "sctp"]), _PORTS),
)
_RULES = st.one_of(
    st.builds(lambda allow, network, service: Rule(allow, "", network, service), st.booleans(), _NETWORKS, _SERVICES),
    st.builds(lambda name, service: Rule(True, name, None, service), _NAMES, _SERVICES),
    st.builds(lambda name: Rule(False, name, None, Service()), _NAMES),
)


@given(st.lists(_RULES, min_size=1, max_size=8, unique=True))
def test_what_is_written_is_read_again(rules: list[Rule]) -> None:
    policy = egress.parse([str(rule) for rule in rules])
    assert policy is not None and policy.rules == tuple(rules)
    assert egress.parse(policy.texts) == policy
    assert egress.parse([",".join(map(str, rules))]) == policy  # as a label
    assert policy.closed == any(rule.allow for rule in rules)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        policy = egress.parse([text])
    except InvalidEgress:
        return
    assert policy is None or egress.parse(policy.texts) == policy


def test_words() -> None:
    assert egress.parse([]) is None and egress.parse(["any"]) is None
    nothing = egress.parse(["none"])
    assert nothing is not None and nothing.texts == ("none",) and nothing.closed
    both = egress.parse(["allow=A.example:443,10.0.0.0/8:1-2/tcp", "deny=10.0.0.5,::1", "allow=[fe80::1]:53/udp"])
    assert both is not None and both.texts == (
        "allow=a.example:443", "allow=10.0.0.0/8:1-2/tcp", "deny=10.0.0.5", "deny=::1", "allow=[fe80::1]:53/udp",
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "allow", "allow=", "allow=a:", "allow=a:0", "allow=a:2-1", "allow=a:1-", "allow=a:70000", "deny=a:80",
        "allow=10.0.0.1/8", "allow=300.1.1.1", "allow=[::1", "allow=[::1]80", "allow=*", "allow=a.*", "allow=-a",
        "allow=a/icmp/tcp", "allow=1.1.1.1:8/icmp", "block=a", "none,allow=a", "any,none", "allow=" + "a" * 64,
        "allow=a b", "allow=fe80::1%eth0", "allow=[fe80::1% } accept; ]:80", 'allow=a"}', "allow=a;b",
    ],
)  # fmt: skip
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidEgress, match="invalid egress rule"):
        egress.parse([text])


def test_too_many_rules() -> None:
    with pytest.raises(InvalidEgress, match="more than 1024"):
        egress.parse([f"allow=a{number}" for number in range(1025)])


def test_decisions() -> None:
    policy = egress.parse(["allow=10.0.0.0/8:80,*.wild.example,good.example:443", "deny=10.0.0.5,bad.wild.example"])
    assert policy is not None

    def permits(address: str, proto: str, port: int, *names: str) -> bool:
        assert policy is not None
        return policy.permits(ip_address(address), proto, port, names)

    assert permits("10.1.1.1", "tcp", 80) and permits("10.1.1.1", "udp", 80)
    assert not permits("10.1.1.1", "tcp", 81) and not permits("10.1.1.1", "icmp", 80)
    assert not permits("10.0.0.5", "tcp", 80, "x.wild.example")
    assert permits("192.0.2.1", "icmp", 0, "x.wild.example") and not permits("192.0.2.1", "tcp", 80, "wild.example")
    assert permits("192.0.2.1", "tcp", 443, "good.example") and not permits("192.0.2.1", "tcp", 80, "good.example")
    asked = ("good.example", "a.b.wild.example", "wild.example", "bad.wild.example", "evil.example", "xgood.example")
    assert [policy.asks(name) for name in asked] == [True, True, False, False, False, False]
    open_one = egress.parse(["deny=bad.example"])
    assert open_one is not None and open_one.asks("x.example") and not open_one.asks("bad.example")
    assert not open_one.asks("dns.google") and not open_one.asks("use-application-dns.net")


def one_list(*texts: str) -> Listed:
    policy = egress.parse(texts)
    assert policy is not None
    endpoint = Endpoint("n", "app", "e" * 64, "172.18.0.2", ipv6="fd00::2", mac="02:42:ac:12:00:02")
    return Listed("0123456789ab", policy, (Place("br-1", "02:42:ac:12:00:01", endpoint),))


def test_rules_are_in_the_order_that_decides() -> None:
    text = listed.added("t", one_list("allow=10.0.0.0/8,10.0.0.53:53,a:80,b", "deny=10.9.9.9"), {}, 7)
    lines = [line.partition(" c_0123456789ab ")[2] for line in text.splitlines() if "add rule inet t c_" in line]
    order = ["ct state", "ip daddr 10.9.9.9/32", "ip daddr 10.0.0.53/32 meta", "ip daddr @n0_4", "ip6 daddr @n0_6",
             "meta l4proto { tcp, udp } th dport { 53, 853 }", "ip daddr @doh4", "ip6 daddr @doh6",
             "ip daddr 10.0.0.0/8", "ip daddr @n1_4", "ip6 daddr @n1_6", "goto r_"]  # fmt: skip
    positions = [next(place for place, line in enumerate(lines) if line.startswith(start)) for start in order]
    assert positions == sorted(positions) and lines[-1] == "goto r_0123456789ab"
    assert listed.added("t", one_list("deny=a"), {}, 7).count("c_0123456789ab accept\n") == 1


def test_a_table_is_emptied_without_being_removed() -> None:
    listing = "table inet t { # progname x\n\tflags owner\n\n\tmap from4 {\n\t\ttype ifname\n\t}\n\n\tset s {\n\t}\n"
    listing += "\tchain c {\n\t\tip saddr { 1.1.1.1 } accept\n\t}\n}\n"
    assert listed.clearing("t", "inet", listing).splitlines() == [
        "flush table inet t", "flush map inet t from4", "delete map inet t from4", "delete set inet t s",
        "delete chain inet t c",
    ]  # fmt: skip
    assert listed.clearing("t", "inet", "") == "flush table inet t\n"


def test_what_answers_open() -> None:
    policy = egress.parse(["allow=good.example:443,db"])
    assert policy is not None
    gate, admitted = Gate(policy, barred=(ip_network("172.18.0.0/16"),)), dict[Resolved, tuple[str, int]]()

    async def admit(wanted: object) -> None:
        assert isinstance(wanted, dict)
        admitted.clear()
        admitted.update(wanted)

    gate.admit = admit
    address, own = ip_address("192.0.2.1"), ip_address("172.18.0.9")

    def opened(name: str, *records: tuple[str, int], ours: bool = False) -> dict[Resolved, tuple[str, int]]:
        admitted.clear()
        found = [(ip_address(text), ttl_s) for text, ttl_s in records]
        assert asyncio.run(gate.open((name,), found, ours=ours))
        return dict(admitted)

    service = Service("", 443, 443)
    told = [("192.0.2.1", 60), ("172.18.0.9", 60), ("127.0.0.1", 60), ("169.254.169.254", 60)]
    assert opened("good.example", *told) == {Resolved(service, address): ("good.example", 90)}
    assert opened("db", ("172.18.0.9", 600), ours=True) == {Resolved(Service(), own): ("db", 630)}
    gate.resolved[Resolved(service, address)] = ("good.example", 1e12)
    assert opened("good.example", ("192.0.2.1", 60)) == {}  # it is open long enough
    gate.resolved.update({Resolved(service, ip_address(number)): ("x", 1e12) for number in range(5000)})
    assert not asyncio.run(gate.open(("good.example",), [(ip_address("192.0.2.2"), 60)], ours=False))


@given(st.binary(max_size=200))
def test_any_packet_is_read_or_passed_over(packet: bytes) -> None:
    parse_packet("key", packet, 0)


def question(name: str, kind: int = dnswire.A) -> bytes:
    labels = b"".join(bytes((len(label),)) + label.encode() for label in name.split("."))
    return b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0" + kind.to_bytes(2, "big") + b"\0\1"


def record(owner: bytes, kind: int, ttl_s: int, data: bytes) -> bytes:
    return owner + kind.to_bytes(2, "big") + b"\0\1" + ttl_s.to_bytes(4, "big") + len(data).to_bytes(2, "big") + data


def test_addresses_of_an_answer() -> None:
    query = dnswire.parse(question("www.example"))
    end, other = b"\3end\7example\0", b"\5other\7example\0"
    records = record(b"\xc0\x0c", dnswire.CNAME, 30, end) + record(end, dnswire.A, 300, b"\xc0\0\2\1")
    records += record(other, dnswire.A, 300, b"\xc0\0\2\2")  # nothing leads there
    message = b"\0\7\x81\x80\0\1\0\3\0\0\0\0" + query.raw + records
    assert dnswire.addresses(message, query) == [(ip_address("192.0.2.1"), 30)]
    loop = record(b"\xc0\x0c", dnswire.CNAME, 30, b"\xc0\x0c")
    assert dnswire.addresses(b"\0\7\x81\x80\0\1\0\1\0\0\0\0" + query.raw + loop, query) == []
    with pytest.raises(dnswire.Malformed):
        dnswire.addresses(b"\0\7\x81\x80\0\1\0\1\0\0\0\0" + query.raw + b"\xc0\x20" * 3, query)


@given(st.binary(max_size=300))
def test_any_answer_is_read_or_malformed(tail: bytes) -> None:
    query = dnswire.parse(question("www.example"))
    for message in (tail, b"\0\7\x81\x80\0\1\0\3\0\0\0\0" + query.raw + tail):
        try:
            found = dnswire.addresses(message, query)
        except dnswire.Malformed:
            continue
        assert all(0 <= ttl_s < 1 << 31 for _, ttl_s in found)


def test_a_refused_name_says_why_to_who_understands() -> None:
    query = dnswire.parse(question("bad.example"))
    plain, extended = dnswire.filtered(query, edns=False), dnswire.filtered(query, edns=True)
    assert plain[3] & 0xF == extended[3] & 0xF == dnswire.NXDOMAIN
    assert len(plain) == 12 + len(query.raw) and extended.endswith(b"\0\x0f\0\2\0\x11")
