"""What is asked of a registry besides content: whether credentials are good, and what it has to find.

`GET /v2/` answers the first (Docker Registry HTTP API V2); the second is Docker Hub's old index API, `/v1/search`.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from corral.image import auth
from corral.image.refusals import LoginFailed, NoSearch, RegistryFailed, RegistryUnreachable
from corral.image.registry import Answer, Registry

_SEARCH_HOSTS = {"registry-1.docker.io": "index.docker.io"}


def login(registry: Registry, credentials: Mapping[str, Any]) -> str:
    """Try credentials; the identity token that the registry gives in their place, "" for none.

    Raises LoginFailed with Docker's words, RegistryUnreachable or RegistryFailed.
    """
    url = registry.url("/v2/")
    answer = _get(registry, url, {})
    if answer.status == 200:
        return ""
    challenge = auth.parse_challenge(answer.headers.get("WWW-Authenticate") or "")
    if answer.status != 401 or challenge.scheme not in ("basic", "bearer"):
        raise registry.failure(answer)
    token = ""
    if challenge.scheme == "bearer":
        realm = challenge.parameters
        if not realm.get("realm"):
            raise RegistryFailed(401, "its challenge names no token server")
        wanted = auth.scopes(realm.get("scope", ""), "", "", ())
        fields = registry.authorizer.ask(registry, realm, wanted, offline=True)
        token = fields.get("refresh_token") or ""
        header = f"Bearer {fields.get('token') or fields.get('access_token') or ''}"
    else:
        header = auth.basic(credentials) or ""
    answer = _get(registry, url, {"Authorization": header})
    if answer.status != 200:
        raise LoginFailed(
            f"login attempt to {url} failed with status: {answer.status} {http.client.responses.get(answer.status, '')}"
        )
    return token if isinstance(token, str) else ""


def search(registry: Registry, term: str, limit: int) -> list[dict[str, Any]]:
    """Repositories for a term, as the registry orders them: name, description, star_count, is_official.

    Raises NoSearch where there is no such thing.
    """
    query = urllib.parse.urlencode({"q": term, "n": limit})
    host = _SEARCH_HOSTS.get(registry.host)
    url = f"https://{host}/v1/search?{query}" if host else registry.url(f"/v1/search?{query}")
    answer = _get(registry, url, {})
    if answer.status == 401 and registry.authorizer.has_credentials:
        challenge = auth.parse_challenge(answer.headers.get("WWW-Authenticate") or "")
        if registry.authorizer.answer(registry, challenge):
            answer = _get(registry, url, {"Authorization": registry.authorizer.header or ""})
    if answer.status in (401, 403, 404, 405, 501):
        raise NoSearch(host or registry.host, answer.status)
    if answer.status != 200:
        raise registry.failure(answer)
    try:
        results = json.loads(answer.body)["results"]
        return [_result(item) for item in results[:limit]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise RegistryFailed(200, "the search's answer cannot be read") from error


def _result(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": str(item["name"]),
        "description": str(item.get("description") or ""),
        "star_count": int(item.get("star_count") or 0),
        "is_official": bool(item.get("is_official")),
    }


def _get(registry: Registry, url: str, headers: dict[str, str]) -> Answer:
    try:
        return registry.exchange("GET", url, headers)
    except RegistryUnreachable:
        registry.close()
        raise
