"""`corral events`."""

from __future__ import annotations

import sys

from corral import jsontext
from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.listing import FILTER, filters
from corral.cli.moments import api_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _events(session: Session) -> int:
    flags = session.flags
    format_ = flags["format"]
    template = None
    if format_ and format_ != "json":
        from corral.cli.template import Template

        template = Template(format_.replace("\\t", "\t").replace("\\n", "\n"))
    query = {
        "since": api_moment(flags["since"], "since"),
        "until": api_moment(flags["until"], "until"),
        "filters": filters(flags["filter"]),
    }
    for event in session.client.request("GET", "/events", query).records():
        attributes = event["Actor"].get("Attributes")
        if attributes:  # a map to docker, which has its keys in order
            event["Actor"]["Attributes"] = dict(sorted(attributes.items()))
        text = template.render(event) if template else jsontext.dumps(event) if format_ == "json" else line(event)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    return 0


def line(event: dict[str, Any]) -> str:
    """`2026-11-23T21:27:26.123456789Z container start ID (image=bb, name=x)`."""
    attributes = event["Actor"].get("Attributes") or {}
    shown = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items()))
    text = f"{moment(event)} {event['Type']} {event['Action']} {event['Actor']['ID']}"
    return f"{text} ({shown})" if shown else text


def moment(event: dict[str, Any]) -> str:
    """When it happened: local time with nanoseconds and zone."""
    import time

    if not event.get("timeNano") and not event.get("time"):
        return ""
    nano = int(event.get("timeNano") or event["time"] * 10**9)
    local = time.localtime(nano // 10**9)
    zone = time.strftime("%z", local)
    zone = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{nano % 10**9:09d}{zone}"


EVENTS = Command(
    _events,
    "Show what happens at the daemon, as it happens",
    "[OPTIONS]",
    (
        FILTER,
        Flag("format", "", "string", "Go template for each event, or `json`"),
        Flag("since", "", "string", "From this moment on"),
        Flag("until", "", "string", "Up to this moment"),
    ),
    aliases="system events, events",
    examples=("events --filter type=container --since 1h",),
)
