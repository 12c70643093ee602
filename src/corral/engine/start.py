"""Starting a container: the one story from a record to a running process, with every step's undo beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from corral.engine import (
    cdi,
    devices,
    extensions,
    failures,
    filesystem,
    forwarding,
    links,
    logdrivers,
    mounts,
    mountuse,
    remap,
    spec,
    vaultfiles,
)
from corral.engine.context import Engine
from corral.engine.defaults import size_bytes
from corral.engine.live import Live, NoSuchContainer
from corral.engine.record import Container, save, timestamp
from corral.engine.tasks import Listener, Task
from corral.errors import Conflict, CorralError, InvalidParameter
from corral.net import names
from corral.net.model import Attachment, EndpointRequest
from corral.runtime.failure import Failure
from corral.wire.containers import EndpointSettings


class JoinRefused(Conflict):
    """The container whose namespace is to be joined does not run."""


class NotShareable(InvalidParameter):
    """A container that does not share its System V objects and shared memory."""


class BadSeccompProfile(InvalidParameter):
    """A seccomp profile that is not JSON."""


async def start(engine: Engine, live: Live, listener_for: Callable[[Live, Task], Listener]) -> None:
    """Start the process of a container; the caller holds its lock and has checked its state.

    On an error nothing is left but the record of the failed attempt.
    """
    record = live.record
    try:
        async with contextlib.AsyncExitStack() as undo:
            _take_shared_name(engine, record)
            bundle = make_bundle(engine, record, undo)
            mounts.prepare_sources(record.mounts, engine.ids_of(record))
            await mountuse.acquire(engine, record)
            undo.push_async_callback(mountuse.release, engine, record)
            groups = write_spec(engine, record, bundle, await _devices(record))
            files = await asyncio.to_thread(vaultfiles.placed, engine.vault, record.host) if _has_files(record) else []
            task = engine.launcher.launch(bundle)
            undo.callback(task.close)
            await _create(engine, live, task, groups)
            undo.push_async_callback(abandon, task)
            if files:
                await asyncio.to_thread(vaultfiles.place, task.pid, files, engine.ids_of(record))
            attachment = await attach_network(engine, live, task, undo)
            write_host_files(engine, live, attachment)
            started_ns = time.time_ns()
            await task.request("start")
            undo.pop_all()
    except (Failure, CorralError) as error:
        told = failures.of_start(error) if isinstance(error, Failure) else error
        await _note_failure(engine, live, told)
        raise told from error
    _note_running(live, task, attachment, started_ns)
    await engine.commit(save(record))
    engine.publish(live, "start")
    task.listen(listener_for(live, task))


async def _devices(record: Container) -> list[dict[str, Any]]:
    """The devices that --device names; a folder of them, which is searched in a thread, may be any folder."""
    if record.host.privileged or not record.host.devices:
        return []
    return await asyncio.to_thread(devices.chosen, record.host)


def _has_files(record: Container) -> bool:
    return bool(record.host.secrets or record.host.configs)


def make_bundle(engine: Engine, record: Container, undo: contextlib.AsyncExitStack) -> str:
    """The empty folder of a run, below the exec root."""
    bundle = engine.paths.bundle(record.id)
    if os.path.lexists(bundle):
        shutil.rmtree(bundle)
    os.makedirs(os.path.join(bundle, "rootfs"), mode=0o710)
    undo.callback(shutil.rmtree, bundle, ignore_errors=True)
    return bundle


def write_spec(
    engine: Engine, record: Container, bundle: str, user_devices: Sequence[dict[str, Any]] = ()
) -> list[str]:
    """Build the OCI spec and put it into the bundle; the groups that named devices add to the user's."""
    built = spec.build(record, surroundings(engine, record, user_devices))
    groups = cdi.apply(built, cdi.edits(record.host.device_requests or (), engine.config.cdi_spec_dirs))
    with open(os.path.join(bundle, "config.json"), "wb") as file:
        file.write(msgspec.json.encode(built))
    return groups


def surroundings(engine: Engine, record: Container, user_devices: Sequence[dict[str, Any]]) -> spec.Surroundings:
    """What the spec of a container takes from the daemon and the machine."""
    host, paths = record.host, engine.paths
    own_files = not host.network_mode.startswith("container:")
    owner = record if own_files else _joined(engine, host.network_mode).record
    parent = host.cgroup_parent or engine.config.cgroup_parent or "/corral"
    profile = spec.security_options(host.security_opt or []).seccomp or engine.config.seccomp_profile
    init_path = devices.init_path(engine.config, host)
    return spec.Surroundings(
        facts=engine.facts,
        root=os.path.join(paths.bundle(record.id), "rootfs"),
        cgroup_parent=parent if parent.startswith("/") else f"/{parent}",
        hostname_path=paths.file(owner.id, "hostname"),
        hosts_path=paths.file(owner.id, "hosts"),
        resolv_path=paths.file(owner.id, "resolv.conf"),
        shm_size=host.shm_size or size_bytes(engine.config.default_shm_size),
        joined=_joined_namespaces(engine, record),
        init_path=init_path,
        built_in_init=bool(host.init) and not init_path,
        vault_mounts=tuple(vaultfiles.mounts(host)),
        default_ulimits=spec.ulimits(engine.config.default_ulimits),
        seccomp_profile=_seccomp_profile(profile, host.privileged),
        user_devices=list(user_devices),
        throttles=devices.throttles(host),
        no_new_privileges=engine.config.no_new_privileges,
        layers=mountuse.layers(engine, record),
        ids=engine.ids_of(record),
    )


def _seccomp_profile(profile: str, privileged: bool) -> Mapping[str, Any] | None:
    if privileged or profile in ("", "builtin"):
        return None
    if profile == "unconfined":
        return {}
    try:
        decoded = msgspec.json.decode(profile)
    except msgspec.DecodeError as error:
        raise BadSeccompProfile(f"Decoding seccomp profile failed: {error}") from error
    if not isinstance(decoded, dict):
        raise BadSeccompProfile("Decoding seccomp profile failed: not an object")
    return devices.seccomp_for_machine(decoded)


def _joined(engine: Engine, mode: str) -> Live:
    """The running container that `container:REF` names."""
    ref = mode.partition(":")[2]
    other = engine.index.find(ref)
    if other is None:
        raise NoSuchContainer(ref)
    if not other.has_process:
        raise JoinRefused(f"cannot join network namespace of a non running container: {other.id}")
    return other


def _take_shared_name(engine: Engine, record: Container) -> None:
    """A container in the network of another has that one's name: the hosts file, which both see, knows no other."""
    if record.host.network_mode.startswith("container:"):
        owner = _joined(engine, record.host.network_mode).record
        record.config.hostname, record.config.domainname = owner.config.hostname, owner.config.domainname


def _joined_namespaces(engine: Engine, record: Container) -> dict[str, str]:
    host = record.host
    found = {}
    for kind, file, mode in (
        ("network", "net", host.network_mode),
        ("pid", "pid", host.pid_mode),
        ("ipc", "ipc", host.ipc_mode),
    ):
        if mode.startswith("container:"):
            other = _joined(engine, mode).record
            pid = other.state.pid
            found[kind] = f"/proc/{pid}/ns/{file}"
            if shared := remap.joined(engine.ids, record, other):
                found["user"] = shared
            if kind == "ipc" and other.host.ipc_mode in ("private", "none"):
                raise NotShareable(
                    f"cannot join IPC of container {other.id}: "
                    "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                )
            if kind == "ipc":
                found["shm"] = f"/proc/{pid}/root/dev/shm"
    return found


async def _create(engine: Engine, live: Live, task: Task, groups: Sequence[str]) -> None:
    record = live.record
    runtime = engine.config.runtime(record.host.runtime)
    size = list(record.host.console_size) if any(record.host.console_size) else None
    forwarder = await forwarding.open_forwarder(engine, record)
    clients, live.early_clients = live.early_clients, []
    if forwarder is not None:
        clients.append(forwarder)
    try:
        answer = await task.request(
            "create",
            [client.fd for client in clients],
            id=record.id,
            runtime=[runtime.path, *runtime.arguments] if runtime else None,
            rootfs=filesystem.rootfs(engine, live),
            user=record.config.user,
            groups=[*(record.host.group_add or []), *groups],
            terminal=record.config.tty,
            console_size=size,
            stdin=record.config.open_stdin,
            stdin_once=record.config.stdin_once,
            log=logdrivers.file_settings(record, engine.paths.file(record.id, record.log_path)),
            exit_path=engine.paths.file(record.id, "exit.json"),
            clients=[client.described() for client in clients],
        )
    finally:
        for client in clients:
            client.close()
    task.pid = answer["pid"]


async def attach_network(engine: Engine, live: Live, task: Task, undo: contextlib.AsyncExitStack) -> Attachment:
    """Give a created container its networks; nothing for one that uses another's."""
    record = live.record
    mode = record.host.network_mode
    if mode == "host" or mode.startswith("container:") or record.config.network_disabled:
        return Attachment((), (), "")
    undo.push_async_callback(engine.networks.detach, record.id)
    attachment = await engine.networks.attach(
        record.id,
        task.pid,
        [request_of(engine, live, network, asked) for network, asked in record.networks.items()],
        devices.wanted_ports(record),
        hostname=record.config.hostname,
        name=record.name,
        upstream=tuple(record.host.dns or engine.config.dns),
        egress_list=record.host.egress or (),
    )
    for endpoint in attachment.endpoints:
        network_event(engine, endpoint.network_id, endpoint.network_name, record.id, "connect", endpoint.driver)
    return attachment


def network_event(engine: Engine, network_id: str, name: str, container: str, action: str, driver: str) -> None:
    """Publish that a container joined or left a network."""
    attributes = {"container": container, "name": name, "type": driver}
    engine.events.publish("network", action, network_id, attributes)


def request_of(engine: Engine, live: Live, network: str, settings: EndpointSettings) -> EndpointRequest:
    """One network a container wants to join, in the network side's terms."""
    record, ipam = live.record, settings.ipam_config
    linked = links.resolve(engine, live, [*(settings.links or ()), *(record.host.links or ())])
    rate_in, rate_out = extensions.parse_rate(record.host.net_rate)
    return EndpointRequest(
        network=network,
        rate_in=rate_in,
        rate_out=rate_out,
        egress=bool(record.host.egress),
        aliases=tuple(settings.aliases or ()),
        ipv4=(ipam.ipv4_address or None) if ipam else None,
        ipv6=(ipam.ipv6_address or None) if ipam else None,
        mac=settings.mac_address or record.config.mac_address or None,
        driver_opts=dict(settings.driver_opts or {}),
        gw_priority=settings.gw_priority,
        link_local=tuple((ipam.link_local_ips or ()) if ipam else ()),
        links=tuple((other.id, alias) for other, alias in linked) if network != "bridge" else (),
    )


def write_host_files(engine: Engine, live: Live, attachment: Attachment) -> None:
    """hostname, hosts and resolv.conf; in place, because the container has these very files mounted."""
    record = live.record
    mode = record.host.network_mode
    if mode.startswith("container:"):
        return
    folder = engine.paths.container(record.id)
    config, host = record.config, record.host
    extra = names.extra_hosts(host.extra_hosts or [], gateway_addresses(engine, attachment))
    resolv = _of_host("/etc/resolv.conf")
    _write(folder, "hostname", (config.hostname or engine.facts.hostname) + "\n")
    if mode == "host":
        _write(folder, "hosts", names.hosts_of_host(_of_host("/etc/hosts"), extra))
        embedded = False
    else:
        addresses = [address for e in attachment.endpoints for address in (e.ipv4, e.ipv6) if address]
        linked = links.hosts_lines(links.resolve(engine, live, host.links or ())) if mode == "bridge" else []
        _write(folder, "hosts", names.hosts(config.hostname, config.domainname, addresses, extra=extra, links=linked))
        embedded = attachment.embedded
    if mode == "host" and not (host.dns or host.dns_search or host.dns_options):
        _write(folder, "resolv.conf", resolv)
        return
    found = names.resolver(
        resolv,
        servers=host.dns or engine.config.dns,
        searches=host.dns_search or engine.config.dns_search,
        options=host.dns_options or engine.config.dns_opts,
        ipv6=any(endpoint.ipv6 for endpoint in attachment.endpoints),
    )
    _write(folder, "resolv.conf", names.resolv_conf(found, embedded=embedded))


def gateway_addresses(engine: Engine, attachment: Attachment) -> list[str]:
    """What `host-gateway` stands for."""
    if engine.config.host_gateway_ips:
        return list(engine.config.host_gateway_ips)
    return [endpoint.gateway for endpoint in attachment.endpoints if endpoint.gateway][:1]


def _of_host(path: str) -> str:
    """A file of the host's that it need not have: a fresh machine may be without any resolver."""
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(folder: str, name: str, text: str) -> None:
    with open(os.path.join(folder, name), "w") as file:
        file.write(text)


async def abandon(task: Task) -> None:
    """Undo a create that was not started."""
    with contextlib.suppress(CorralError, Failure):
        await task.request("abandon")
        await asyncio.wait_for(task.gone.wait(), 10)


async def _note_failure(engine: Engine, live: Live, error: CorralError) -> None:
    state = live.record.state
    state.exit_code = failures.exit_code(error)
    state.error = str(error)
    if state.status == "restarting":
        state.status = "exited"
        state.finished_at = timestamp(time.time_ns())
    await engine.commit(save(live.record))
    for client in live.early_clients:
        client.close()
    live.early_clients.clear()


def _note_running(live: Live, task: Task, attachment: Attachment, started_ns: int) -> None:
    record = live.record
    live.task = task
    live.started_monotonic = time.monotonic()
    live.stopping = False
    state = record.state
    state.status = "running"
    state.pid = task.pid
    state.started_at = timestamp(started_ns)
    state.error = ""
    state.exit_code = 0
    state.oom_killed = False
    state.stopped_by_user = False
    record.endpoints = list(attachment.endpoints)
    for endpoint in record.endpoints:
        asked = record.networks.get(endpoint.network_name) or record.networks.get(endpoint.network_id)
        if asked is not None:
            asked.network_id = endpoint.network_id  # told of a stopped container, too
    record.ports = list(attachment.ports)
