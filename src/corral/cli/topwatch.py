"""What `corral top` shows, kept up to date by threads: one for the list of containers, one for each container."""

from __future__ import annotations

import threading
import time

from corral import jsontext
from corral.cli.problems import CliError
from corral.cli.stats import block_bytes, cpu_percent, memory_bytes, network_bytes
from corral.cli.toptable import Row
from corral.cli.transport import Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from corral.cli.endpoint import Endpoint

_AGAIN_S = 1.0
_STATUS_S = 5.0  # `Up 10 seconds` is the daemon's wording, and no event tells of it
_LIST_EVENTS = jsontext.dumps(
    {
        "type": {"container": True},
        "event": dict.fromkeys(("start", "die", "destroy", "rename", "pause", "unpause"), True),
    }
)


class Watch:
    """The running containers of a daemon and what they use."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self.problem = ""
        threading.Thread(target=self._keep_list, daemon=True).start()
        threading.Thread(target=self._keep_statuses, daemon=True).start()

    def rows(self) -> list[Row]:
        """All of them, in no order."""
        with self._lock:
            return list(self._rows.values())

    def _keep_list(self) -> None:
        """The list is read anew with every event that changes it; a daemon that went away is asked again."""
        pause = threading.Event()
        while True:
            try:
                # subscribed first, so that nothing happens unseen between the list and the events
                events = Client(self._endpoint).request("GET", "/events", {"filters": _LIST_EVENTS}).records()
                self._read_list()
                self.problem = ""
                for _ in events:
                    self._read_list()
                self.problem = "the daemon has closed the connection"
            except (CliError, OSError) as error:
                self.problem = str(error)
            pause.wait(_AGAIN_S)

    def _keep_statuses(self) -> None:
        pause = threading.Event()
        while not pause.wait(_STATUS_S):
            try:
                self._read_list()
            except (CliError, OSError):
                pass  # the other thread tells

    def _read_list(self) -> None:
        found = {one["Id"]: one for one in Client(self._endpoint).get("/containers/json")}
        with self._lock:
            for identity in self._rows.keys() - found.keys():
                del self._rows[identity]
            new = found.keys() - self._rows.keys()
            for identity, one in found.items():
                name, image = one["Names"][0].removeprefix("/"), one["Image"]
                row = self._rows.setdefault(identity, Row(identity, name, image, one["Status"]))
                row.name, row.status = name, one["Status"]
        for identity in new:
            threading.Thread(target=self._follow, args=(identity,), daemon=True).start()

    def _follow(self, identity: str) -> None:
        before: Mapping[str, Any] | None = None
        arrived = 0.0
        try:
            client = Client(self._endpoint)
            for record in client.request("GET", f"/containers/{identity}/stats", {"stream": True}).records():
                now = time.monotonic()
                with self._lock:
                    row = self._rows.get(identity)
                    if row is None:
                        return
                    take(row, record, before, now - arrived)
                before, arrived = record, now
        except (CliError, OSError):
            pass  # the container or the daemon has ended, which the list tells


def take(row: Row, record: Mapping[str, Any], before: Mapping[str, Any] | None, passed_s: float) -> None:
    """Bring a row up to date with a record; rates need the one before."""
    memory = record.get("memory_stats") or {}
    row.memory_bytes, row.memory_limit_bytes = memory_bytes(memory), float(memory.get("limit") or 0)
    row.pids = int((record.get("pids_stats") or {}).get("current") or 0)
    if before is None or passed_s <= 0:
        return
    row.cpu_percent = cpu_percent(record)  # the first record has nothing to compare with
    (received, sent), (received_before, sent_before) = network_bytes(record), network_bytes(before)
    (read, written), (read_before, written_before) = block_bytes(record), block_bytes(before)
    row.received_rate = max(0.0, received - received_before) / passed_s
    row.sent_rate = max(0.0, sent - sent_before) / passed_s
    row.read_rate = max(0.0, read - read_before) / passed_s
    row.written_rate = max(0.0, written - written_before) / passed_s
