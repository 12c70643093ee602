"""A volume plugin: a process of its own that keeps its volumes in a folder and logs every call it gets.

    python volume_plugin.py SOCKET FOLDER

Files in FOLDER: `log` (one JSON list [path, body] a line), `volumes/NAME` (the files), and, if a test makes it,
`broken`: while it exists every Mount is refused with its text.
"""

from __future__ import annotations

import json
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    folder: Path


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "peer"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(text) if text else None
        with open(self.server.folder / "log", "a") as log:
            log.write(json.dumps([self.path, body]) + "\n")
        answer = json.dumps(self._answer(self.path.rpartition(".")[2], body or {})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answer(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        volumes = self.server.folder / "volumes"
        if verb == "Activate":
            return {"Implements": ["VolumeDriver"]}
        if verb == "Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if verb == "List":
            return {"Volumes": [self._described(path) for path in sorted(volumes.iterdir())], "Err": ""}
        path = volumes / body["Name"]
        if verb == "Create":
            path.mkdir(exist_ok=True)
        elif not path.is_dir():
            return {"Err": f"no volume {path.name} here"}
        elif verb == "Get":
            return {"Volume": self._described(path), "Err": ""}
        elif verb == "Remove":
            path.rename(self.server.folder / f"removed-{path.name}")
        elif verb == "Mount":
            broken = self.server.folder / "broken"
            return {"Err": broken.read_text()} if broken.exists() else {"Mountpoint": str(path), "Err": ""}
        return {"Err": ""}

    def _described(self, path: Path) -> dict[str, Any]:
        return {"Name": path.name, "Mountpoint": str(path), "Status": {"files": len(list(path.iterdir()))}}


def main(socket_path: str, folder: str) -> None:
    """Serve for ever."""
    Path(folder, "volumes").mkdir(parents=True, exist_ok=True)
    with _Server(socket_path, _Handler) as server:
        server.folder = Path(folder)
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
