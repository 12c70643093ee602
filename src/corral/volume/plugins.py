"""Volume plugins: processes that listen on a unix socket (or, by a spec file, anywhere) and speak JSON over HTTP.

    /run/docker/plugins/NAME.sock, .../NAME/NAME.sock       where a plugin listens
    /etc/docker/plugins, /usr/lib/docker/plugins            NAME.spec (an address) and NAME.json

https://docs.docker.com/engine/extend/plugins_volume/ has the protocol.  Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from corral.errors import NotFound, System
from corral.volume.model import Tls

SOCKET_FOLDERS = ("/run/docker/plugins",)
SPEC_FOLDERS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_ANSWER_LIMIT_BYTES = 16 << 20


class UnknownVolumeDriver(NotFound):
    """No plugin has this name, or it is not one for volumes."""

    def __init__(self, driver: str, reason: str = "") -> None:
        reason = reason or f'plugin "{driver}" not found'
        super().__init__(f"error looking up volume plugin {driver}: {reason}")


class PluginError(System):
    """A plugin answered with an error, or not at all."""


class Plugin:
    """A driver of volumes, reached at `address` (unix:///PATH, tcp://HOST:PORT or http(s)://...)."""

    def __init__(self, name: str, address: str, tls: Tls | None = None) -> None:
        self.name = name
        self.address = address
        self._tls = tls
        self._activated = False
        self._scope = ""

    def activate(self) -> None:
        """Ask what it is; raises UnknownVolumeDriver unless it drives volumes."""
        if self._activated:
            return
        try:
            found = self._post("/Plugin.Activate", None)
        except PluginError as error:
            raise UnknownVolumeDriver(self.name, str(error)) from error
        if "VolumeDriver" not in (found.get("Implements") or []):
            raise UnknownVolumeDriver(self.name, f'plugin "{self.name}" does not implement VolumeDriver')
        self._activated = True

    def call(self, verb: str, **fields: Any) -> dict[str, Any]:
        """`VolumeDriver.VERB`; raises PluginError with what the plugin said."""
        self.activate()
        answer = self._post(f"/VolumeDriver.{verb}", fields)
        if answer.get("Err"):
            raise PluginError(f"VolumeDriver.{verb}: {answer['Err']}")
        return answer

    def scope(self) -> str:
        """`local` or `global`; plugins need not say."""
        if not self._scope:
            try:
                found = str((self.call("Capabilities").get("Capabilities") or {}).get("Scope") or "").lower()
            except PluginError:
                found = ""
            self._scope = found if found in ("local", "global") else "local"
        return self._scope

    def _post(self, path: str, body: Any) -> dict[str, Any]:
        from corral.volume import pluginhttp  # few daemons have plugins, and an HTTP client takes its time to load

        data = b"" if body is None else json.dumps(body).encode()
        try:
            status, text = pluginhttp.post(self.address, self._tls, path, data, limit_bytes=_ANSWER_LIMIT_BYTES + 1)
        except pluginhttp.Unreachable as error:
            raise PluginError(f'cannot reach plugin "{self.name}" at {self.address}: {error}') from error
        if len(text) > _ANSWER_LIMIT_BYTES:
            raise PluginError(f'plugin "{self.name}" answered {path} with more than {_ANSWER_LIMIT_BYTES} bytes')
        try:
            found = json.loads(text or b"{}")
        except ValueError:
            found = None
        if status != 200:
            said = (found or {}).get("Err") if isinstance(found, dict) else text.decode(errors="replace").strip()
            raise PluginError(f"{path.removeprefix('/')}: {said or f'status {status}'}")
        if not isinstance(found, dict):
            raise PluginError(f'plugin "{self.name}" answered {path} with what is not a JSON object')
        return found


class Plugins:
    """The plugins of this machine, looked for whenever a name is asked for that is not known yet."""

    def __init__(self, sockets: Sequence[str] = SOCKET_FOLDERS, specs: Sequence[str] = SPEC_FOLDERS) -> None:
        self._sockets = sockets
        self._specs = specs
        self._known: dict[str, Plugin] = {}

    def get(self, name: str) -> Plugin:
        """The plugin called `name`; raises UnknownVolumeDriver."""
        found = self._find(name)
        if found is None:
            raise UnknownVolumeDriver(name)
        found.activate()
        return found

    def names(self) -> list[str]:
        """Every name that something on this machine claims, sorted."""
        found: set[str] = set()
        for folder in (*self._sockets, *self._specs):
            for entry in os.listdir(folder) if os.path.isdir(folder) else ():
                stem, dot, suffix = entry.rpartition(".")
                if dot and suffix in ("sock", "spec", "json"):
                    found.add(stem)
                elif not dot and self._place(entry):
                    found.add(entry)
        return sorted(found)

    def drivers(self) -> list[Plugin]:
        """Those that drive volumes and answer."""
        found = []
        for name in self.names():
            try:
                found.append(self.get(name))
            except UnknownVolumeDriver:
                continue
        return found

    def _find(self, name: str) -> Plugin | None:
        if not name or "/" in name or name.startswith("."):
            return None
        found = self._place(name)
        if found is None:
            self._known.pop(name, None)
            return None
        known = self._known.get(name)
        if known is None or known.address != found.address:
            known = self._known[name] = found
        return known

    def _place(self, name: str) -> Plugin | None:
        for folder in self._sockets:
            for path in (f"{folder}/{name}.sock", f"{folder}/{name}/{name}.sock"):
                if os.path.exists(path):
                    return Plugin(name, f"unix://{path}")
        for folder in self._specs:
            for path in (f"{folder}/{name}", f"{folder}/{name}/{name}"):
                if (found := _from_spec(name, path)) is not None:
                    return found
        return None


def _from_spec(name: str, path: str) -> Plugin | None:
    try:
        with open(f"{path}.spec", encoding="utf-8") as file:
            return Plugin(name, file.read(4096).strip())
    except (OSError, UnicodeDecodeError):
        pass
    try:
        with open(f"{path}.json", encoding="utf-8") as file:
            found = json.load(file)
        tls = found.get("TLSConfig")
        return Plugin(
            str(found.get("Name") or name),
            str(found["Addr"]),
            Tls(
                str(tls.get("CAFile") or ""), str(tls.get("CertFile") or ""), str(tls.get("KeyFile") or ""),
                bool(tls.get("InsecureSkipVerify")),
            ) if isinstance(tls, dict) else None,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError):
        return None
