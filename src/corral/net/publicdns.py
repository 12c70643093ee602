"""Resolvers that everybody knows.  Pure.

Who asks one of them over HTTPS goes around a container's egress list as far as that works by name.  They are refused
at port 443 unless a rule names them; there are others, which nobody can list.
"""

from __future__ import annotations

ADDRESSES4 = (
    "1.0.0.1", "1.0.0.2", "1.0.0.3", "1.1.1.1", "1.1.1.2", "1.1.1.3", "8.8.4.4", "8.8.8.8", "9.9.9.9", "9.9.9.10",
    "9.9.9.11", "94.140.14.14", "94.140.14.15", "94.140.15.15", "94.140.15.16", "149.112.112.10", "149.112.112.11",
    "149.112.112.112", "185.228.168.9", "185.228.169.9", "208.67.220.220", "208.67.222.222",
)  # fmt: skip
ADDRESSES6 = (
    "2001:4860:4860::64", "2001:4860:4860::6464", "2001:4860:4860::8844", "2001:4860:4860::8888",
    "2606:4700:4700::1001", "2606:4700:4700::1002", "2606:4700:4700::1003", "2606:4700:4700::1111",
    "2606:4700:4700::1112", "2606:4700:4700::1113", "2620:119:35::35", "2620:119:53::53", "2620:fe::9", "2620:fe::fe",
    "2a10:50c0::ad1:ff", "2a10:50c0::ad2:ff",
)  # fmt: skip
_NAMES = frozenset(
    """cloudflare-dns.com mozilla.cloudflare-dns.com chrome.cloudflare-dns.com one.one.one.one dns.google
    dns.google.com dns64.dns.google dns.quad9.net dns9.quad9.net dns10.quad9.net dns11.quad9.net doh.opendns.com
    dns.opendns.com dns.adguard.com dns.adguard-dns.com dns.nextdns.io doh.cleanbrowsing.org doh.dns.sb
    use-application-dns.net""".split()
)  # the last: a browser that cannot resolve it leaves DNS to the system


def is_resolver(name: str) -> bool:
    """Whether a name (lower case) is one of theirs."""
    return name in _NAMES
