"""Every operation of the API, in one table."""

from __future__ import annotations

from corral.api import (
    build,
    containers,
    credentials,
    execs,
    imagelist,
    images,
    native,
    networks,
    system,
    upkeep,
    volumes,
    websocket,
)
from corral.api.router import Route

ROUTES = (
    Route("GET", "/_ping", system.ping),
    Route("HEAD", "/_ping", system.ping),
    Route("GET", "/version", system.version),
    Route("GET", "/info", system.info),
    Route("GET", "/events", system.events),
    Route("GET", "/system/df", upkeep.disk_usage),
    Route("POST", "/system/check", upkeep.check_store),
    # containers
    Route("GET", "/containers/json", containers.list_),
    Route("POST", "/containers/create", containers.create),
    Route("POST", "/containers/prune", containers.prune, (1, 25)),
    Route("GET", "/containers/{name}/json", containers.inspect_),
    Route("GET", "/containers/{name}/top", containers.top),
    Route("GET", "/containers/{name}/logs", containers.logs_),
    Route("GET", "/containers/{name}/changes", containers.changes_),
    Route("GET", "/containers/{name}/export", containers.export),
    Route("GET", "/containers/{name}/stats", containers.stats_),
    Route("GET", "/containers/{name}/archive", containers.archive_get),
    Route("HEAD", "/containers/{name}/archive", containers.archive_head),
    Route("PUT", "/containers/{name}/archive", containers.archive_put),
    Route("POST", "/containers/{name}/start", containers.start),
    Route("POST", "/containers/{name}/stop", containers.stop),
    Route("POST", "/containers/{name}/restart", containers.restart),
    Route("POST", "/containers/{name}/kill", containers.kill),
    Route("POST", "/containers/{name}/pause", containers.pause),
    Route("POST", "/containers/{name}/unpause", containers.unpause),
    Route("POST", "/containers/{name}/rename", containers.rename),
    Route("POST", "/containers/{name}/update", containers.update),
    Route("POST", "/containers/{name}/wait", containers.wait),
    Route("POST", "/containers/{name}/resize", containers.resize),
    Route("POST", "/containers/{name}/attach", containers.attach_),
    Route("GET", "/containers/{name}/attach/ws", websocket.attach_),
    Route("DELETE", "/containers/{name}", containers.remove),
    # execs
    Route("POST", "/containers/{name}/exec", execs.create),
    Route("POST", "/exec/{id}/start", execs.start),
    Route("POST", "/exec/{id}/resize", execs.resize),
    Route("GET", "/exec/{id}/json", execs.inspect_),
    # images
    Route("GET", "/images/json", imagelist.list_),
    Route("POST", "/images/load", images.load),
    Route("POST", "/images/create", images.create),
    Route("POST", "/images/prune", upkeep.prune_images, (1, 25)),
    Route("POST", "/images/gc", upkeep.collect_images),
    Route("GET", "/images/get", images.save),
    Route("GET", "/images/search", images.search),
    Route("GET", "/distribution/{name*}/json", images.distribution, (1, 30)),
    Route("POST", "/auth", credentials.login),
    Route("GET", "/images/{name*}/get", images.save),
    Route("GET", "/images/{name*}/json", imagelist.inspect),
    Route("GET", "/images/{name*}/attestations", imagelist.attestations, (1, 53)),
    Route("GET", "/images/{name*}/history", imagelist.history),
    Route("POST", "/images/{name*}/push", images.push),
    Route("POST", "/commit", images.commit),
    Route("POST", "/images/{name*}/tag", images.tag),
    Route("DELETE", "/images/{name*}", images.remove),
    # build
    Route("POST", "/build", build.build),
    Route("POST", "/corral/build/context", native.context),
    Route("PUT", "/corral/build/context/{id}", native.fill),
    Route("POST", "/corral/build", native.build),
    Route("POST", "/build/prune", build.prune, (1, 31)),
    # networks
    Route("GET", "/networks", networks.list_),
    Route("POST", "/networks/create", networks.create),
    Route("POST", "/networks/prune", networks.prune, (1, 25)),
    Route("GET", "/networks/{name}", networks.inspect),
    Route("POST", "/networks/{name}/connect", networks.connect),
    Route("POST", "/networks/{name}/disconnect", networks.disconnect),
    Route("DELETE", "/networks/{name}", networks.remove),
    # volumes
    Route("GET", "/volumes", volumes.list_),
    Route("POST", "/volumes/create", volumes.create),
    Route("POST", "/volumes/prune", volumes.prune, (1, 25)),
    Route("GET", "/volumes/{name}", volumes.inspect),
    Route("DELETE", "/volumes/{name}", volumes.remove),
    # swarm: not in one
    *(
        Route("GET", f"/{kind}", system.unsupported_swarm)
        for kind in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
    ),
)
