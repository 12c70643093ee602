"""Content discovery: tags, repositories, referrers, a page at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from corral.oci.image import OCI_INDEX
from corral.registry import names
from corral.registry.http.messages import Answer, Request, json
from corral.registry.layout import Layout
from corral.registry.manifests import Manifests
from corral.registry.refusals import QueryInvalid
from corral.registry.surface import Call

if TYPE_CHECKING:
    from corral.registry.upstream import Upstream

_CATALOG_PAGE = 1000
_REFERRERS_PAGE = 1000


class Discovery:
    """The handlers of lists."""

    def __init__(self, layout: Layout, manifests: Manifests, upstream: Upstream | None) -> None:
        self._upstream = upstream
        self._layout = layout
        self._manifests = manifests

    def tags(self, call: Call) -> Answer:
        """`GET /v2/<name>/tags/list`."""
        found = self._upstream.tags(call.repository) if self._upstream is not None else None
        if found is None:
            found = self._manifests.tags(call.repository)
        page, link = _page(call.request, found, None)
        return json({"name": call.repository, "tags": page}, headers=link)

    def catalog(self, call: Call) -> Answer:
        """`GET /v2/_catalog`."""
        existing = [name for name in self._layout.names() if self._manifests.exists(name)]
        page, link = _page(call.request, existing, _CATALOG_PAGE)
        return json({"repositories": page}, headers=link)

    def referrers(self, call: Call) -> Answer:
        """`GET /v2/<name>/referrers/<digest>`: an empty index for a subject that is not there."""
        found = self._manifests.referrers(call.repository, names.digest(call.argument))
        headers: tuple[tuple[str, str], ...] = ()
        wanted = call.request.head.query.get("artifactType")
        if wanted:
            found = [entry for entry in found if entry.get("artifactType") in wanted]
            headers = (("OCI-Filters-Applied", "artifactType"),)
        page, link = _page(call.request, [str(entry["digest"]) for entry in found], _REFERRERS_PAGE)
        chosen = set(page)
        manifests = [entry for entry in found if entry["digest"] in chosen]
        answer = json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}, headers=headers + link)
        answer.content_type = OCI_INDEX
        return answer


def _page(request: Request, found: list[str], most: int | None) -> tuple[list[str], tuple[tuple[str, str], ...]]:
    """What comes after `last`, `n` of it, and the Link to what follows; `found` is sorted."""
    text, last = request.head.parameter("n"), request.head.parameter("last")
    count = most
    if text is not None:
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise QueryInvalid("n is not a number of results")
        count = min(int(text), most) if most is not None else int(text)
    if last is not None:
        found = [name for name in found if name > last]
    if count is None or len(found) <= count:
        return found, ()
    page = found[:count]
    if not page:
        return [], ()
    others = [(key, value) for key, value in request.head.query.items() if key not in ("n", "last")]
    query = urlencode([("n", str(count)), ("last", page[-1]), *others], doseq=True)
    return page, (("Link", f'<{request.head.path}?{query}>; rel="next"'),)
