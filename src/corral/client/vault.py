"""`client.secrets` and `client.configs`: the vault, which is beyond Docker."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from corral.client.flavours import Awaiting, Blocking, verb
from corral.client.session import Session, segment
from corral.wire.shown.resources import VaultItem


class VaultVerbs:
    """What can be done with the items of one kind.  Content goes in and never comes back."""

    def __init__(self, session: Session, kind: str) -> None:
        self._session = session
        self._kind = kind

    @verb
    async def create(self, name: str, content: bytes | str, *, labels: Mapping[str, str] | None = None) -> VaultItem:
        """Keep a content under a name."""
        body = {"Name": name, "Kind": self._kind, "Data": _encoded(content), "Labels": dict(labels or {})}
        return await self._session.post("/vault/create", VaultItem, body=body)

    @verb
    async def update(self, name: str, content: bytes | str) -> VaultItem:
        """Replace the content, also in every running container that has it."""
        path = f"/vault/{segment(name)}/update"
        return await self._session.post(
            path, VaultItem, {"kind": self._kind}, {"Data": _encoded(content)}, patient=True
        )

    @verb
    async def get(self, name: str) -> VaultItem:
        """What is known of it; raises NotFound."""
        return await self._session.get(f"/vault/{segment(name)}", VaultItem, {"kind": self._kind})

    @verb
    async def list(self) -> tuple[VaultItem, ...]:
        """What there is."""
        return await self._session.get("/vault", tuple[VaultItem, ...], {"filters": {"kind": [self._kind]}})

    @verb
    async def remove(self, name: str) -> None:
        """Forget it; no container may have it."""
        await self._session.do("DELETE", f"/vault/{segment(name)}", {"kind": self._kind})


def _encoded(content: bytes | str) -> str:
    return base64.b64encode(content.encode() if isinstance(content, str) else content).decode()


class Vault(VaultVerbs, Blocking):
    """`Client.secrets` and `Client.configs`."""


class AsyncVault(VaultVerbs, Awaiting):
    """`AsyncClient.secrets` and `AsyncClient.configs`."""
