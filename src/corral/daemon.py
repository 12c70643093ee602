"""corrald: wires every object by hand, serves until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import fcntl
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator

from corral.api import listeners
from corral.api.metrics import Metrics
from corral.api.router import Router
from corral.api.routes import ROUTES
from corral.api.server import Server
from corral.api.services import Services
from corral.build.builder import Builder, open_cache
from corral.config import Arguments, Config, ConfigError, merge, parse_arguments
from corral.engine import filesystem, probe, profiles, recover, remap, seccomp, system
from corral.engine.containers import Containers
from corral.engine.context import Engine, Paths
from corral.engine.defaults import size_bytes
from corral.engine.eventlog import EventLog
from corral.engine.events import Events
from corral.engine.execs import Execs
from corral.engine.imagekeeper import ImageKeeper
from corral.engine.system import VERSION
from corral.engine.tasks import Launcher
from corral.errors import CorralError, InvalidParameter
from corral.image import registries
from corral.image.images import Images
from corral.image.registries import Registries
from corral.net.model import DEFAULT_POOLS, AddressPool, NetworkSettings
from corral.net.networks import Networks
from corral.oci.idmap import IdMap
from corral.quantities import parse_size
from corral.store.db import Database
from corral.store.vault import Vault
from corral.volume.snapshots import VolumeSnapshots
from corral.volume.volumes import Volumes

_log = logging.getLogger("corral")


def main() -> int:
    """The command."""
    try:
        arguments = parse_arguments(sys.argv[1:])
        if arguments.help:
            print(_USAGE)
            return 0
        if arguments.version:
            print(f"Corral version {VERSION}")
            return 0
        config = _with_seccomp_profile(merge(arguments, _config_text(arguments.config_file)))
        settings = _registries(config)
        ids = remap.resolve(config.userns_remap) if config.userns_remap and not arguments.validate else None
        if arguments.validate:
            print("configuration OK")
            return 0
    except InvalidParameter as error:
        print(error, file=sys.stderr)
        return 1
    logging.basicConfig(
        level=_level(config),
        format='time="%(asctime)s" level=%(levelname)s msg="%(message)s"',
    )
    if config.log_format == "json":
        logging.getLogger().handlers[0].setFormatter(_JsonLines())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        with _only_one(config, ids):
            return asyncio.run(_serve(config, settings, ids, lambda services: _reload(services, arguments)))
    except (CorralError, OSError) as error:
        print(f"failed to start daemon: {error}", file=sys.stderr)
        return 1


_USAGE = """Usage:  corrald [OPTIONS]

The Corral daemon.  Options are dockerd's; the most used:

  -H, --host list            Daemon sockets to listen on (unix:///PATH, tcp://HOST:PORT, fd://)
      --data-root string     Persistent state (default "/var/lib/corral")
      --exec-root string     State of what runs (default "/run/corral")
  -p, --pidfile string       Where to write the daemon's process id (default "/run/corral.pid")
      --config-file string   Configuration file, daemon.json (default "/etc/corral/daemon.json")
  -G, --group string         Group of the unix socket (default "docker")
  -b, --bridge string        Name of the default bridge ("none" for no default network)
      --bip string           Address and prefix of the default bridge
      --userns-remap string  User whose ids containers have ("default", USER[:GROUP], UID[:GID])
      --insecure-registry    Registries to speak plain HTTP to
      --registry-mirror      Mirrors of Docker Hub
      --validate             Check the configuration and end
  -D, --debug                Log more
  -v, --version              Print the version"""

_DEFAULT_CONFIG_FILE = "/etc/corral/daemon.json"


def _data_root(config: Config, ids: IdMap | None) -> str:
    """The folder that this daemon keeps everything in: of a daemon that remaps, one of its own."""
    return remap.own_root(config.data_root, ids) if config.userns_remap else config.data_root


def _config_text(path: str | None) -> str | None:
    try:
        with open(path or _DEFAULT_CONFIG_FILE) as file:
            return file.read()
    except FileNotFoundError:
        if path is None:
            return None
        raise ConfigError(f"unable to configure the daemon with file {path}: no such file or directory") from None
    except OSError as error:
        raise ConfigError(f"unable to configure the daemon with file {path}: {error.strerror}") from error


def _with_seccomp_profile(config: Config) -> Config:
    """The configuration with the text of the file that `seccomp-profile` names in its place."""
    if config.seccomp_profile in ("", "builtin", "unconfined"):
        return config
    try:
        with open(config.seccomp_profile) as file:
            return dataclasses.replace(config, seccomp_profile=file.read())
    except OSError as error:
        raise ConfigError(f"opening seccomp profile ({config.seccomp_profile}) failed: {error.strerror}") from error


@contextlib.contextmanager
def _only_one(config: Config, ids: IdMap | None) -> Iterator[None]:
    """Own the data root (a lock) and the pid file for the time of the context."""
    os.makedirs(config.data_root, mode=0o710, exist_ok=True)
    if config.userns_remap:
        folder = remap.make_root(config.data_root, ids)
        if ids:
            remap.check_disk(folder, ids)
    os.makedirs(config.exec_root, mode=0o711, exist_ok=True)
    with open(os.path.join(config.data_root, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"cannot start: another daemon uses {config.data_root}") from None
        with open(config.pidfile, "w") as file:
            file.write(f"{os.getpid()}\n")
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(config.pidfile)


async def _serve(config: Config, settings: Registries, ids: IdMap | None, reload: Callable[[Services], None]) -> int:
    machine = os.uname().machine
    launcher = Launcher(seccomp.default_filter(profiles.DEFAULT_CAPABILITIES, machine), ids)
    launcher.start()  # it imports in its own process while we go on in ours
    _raise_descriptor_limit()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    services = _build(config, settings, ids, launcher)
    bound = [(listeners.listener(host, config.group), listeners.tls(host, config)) for host in config.hosts]
    metrics = Metrics(services) if config.metrics_addr else None
    router = Router(services, ROUTES, metrics.observe if metrics else None)
    server = Server(router.dispatch)
    servers = [server]
    loop.add_signal_handler(signal.SIGHUP, reload, services)
    await _recover(services)
    gc.collect()
    gc.freeze()
    for listener, context in bound:
        await server.listen(listener, context)
    if metrics is not None:
        told = Server(metrics.dispatch)
        await told.listen(listeners.tcp_listener(config.metrics_addr))
        servers.append(told)
    services.engine.background.add(asyncio.create_task(services.image_keeper.run()))
    _log.info("serving on %s", ", ".join(config.hosts))
    listeners.notify_ready()
    await stop.wait()
    _log.info("stopping; containers go on" if services.engine.config.live_restore else "stopping, and all containers")
    for one in servers:
        await one.close()
    await _shut_down(services)
    for host in config.hosts:
        if host.startswith("unix://"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(host.removeprefix("unix://"))
    return 0


# What dockerd takes from daemon.json on SIGHUP, too, and ours of the same kind.
_RELOADABLE = (
    "allow_nondistributable_artifacts", "debug", "default_runtime", "image_gc", "insecure_registries", "labels",
    "log_level", "max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts", "registries",
    "registry_mirrors", "runtimes",
)  # fmt: skip


def _reload(services: Services, arguments: Arguments) -> None:
    """Take over what changed in daemon.json; a file that cannot be used changes nothing."""
    engine = services.engine
    old = engine.config
    try:
        new = merge(arguments, _config_text(arguments.config_file))
        config = dataclasses.replace(old, **{name: getattr(new, name) for name in _RELOADABLE})
        settings = _registries(config)
        services.image_keeper.configure(config.image_gc)
    except InvalidParameter as error:
        _log.error("cannot reload the configuration: %s", error)
        return
    later = [
        field.name.replace("_", "-")
        for field in dataclasses.fields(config)
        if getattr(new, field.name) != getattr(config, field.name) and field.name != "seccomp_profile"
    ]
    if later:
        _log.warning("these changes of the configuration need a restart: %s", ", ".join(later))
    engine.config = config
    engine.images.configure(settings)
    logging.getLogger().setLevel(_level(config))
    attributes = {name.replace("_", "-"): _told(getattr(config, name)) for name in _RELOADABLE}
    engine.events.publish("daemon", "reload", system.identity(engine), {"name": engine.facts.hostname, **attributes})
    _log.info("reloaded the configuration")


class _JsonLines(logging.Formatter):
    """The daemon's own log as JSON, one object a line, with dockerd's keys."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="microseconds")
        told = {"level": record.levelname.lower(), "msg": record.getMessage(), "time": when}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told)


def _told(value: object) -> str:
    """A setting as an event shows it."""
    return str(value).lower() if isinstance(value, bool) else json.dumps(value) if value is not None else ""


def _level(config: Config) -> int:
    name = "DEBUG" if config.debug else config.log_level.upper().replace("FATAL", "CRITICAL")
    return int(getattr(logging, name))


def _raise_descriptor_limit() -> None:
    """A connection per container and per client adds up; as many as we may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _build(config: Config, settings: Registries, ids: IdMap | None, launcher: Launcher) -> Services:
    """Every object of the daemon, wired."""
    data_root = _data_root(config, ids)
    paths = Paths(data_root, config.exec_root)
    for folder in (os.path.join(data_root, "containers"), os.path.join(config.exec_root, "containers")):
        os.makedirs(folder, mode=0o711, exist_ok=True)
    db = Database(os.path.join(data_root, "corral.db"))
    events = Events(EventLog(os.path.join(data_root, "events")))

    def image_event(action: str, image: str, attributes: dict[str, str]) -> None:
        events.publish("image", action, image, attributes)
        if action in ("load", "pull", "import"):
            keeper.look_soon()

    images = Images(db, data_root, image_event, settings)
    volumes = Volumes(db, data_root, owner=ids.root if ids else None)
    engine = Engine(
        config=config,
        facts=probe.look(),
        paths=paths,
        db=db,
        events=events,
        launcher=launcher,
        images=images,
        snapshots=images.snapshots,
        networks=Networks(db, _network_settings(config)),
        volumes=volumes,
        volume_snapshots=VolumeSnapshots(volumes),
        vault=Vault(db, config.vault_key_file or os.path.join(data_root, "vault.key")),
        ids=ids,
    )
    keeper = ImageKeeper(engine)
    execs = Execs(engine)
    builder = Builder(engine, open_cache(db, images, _build_cache_bytes(config)))
    return Services(engine, Containers(engine, execs), execs, keeper, builder)


def _build_cache_bytes(config: Config) -> int:
    """How large the build cache may be: daemon.json's builder.gc.defaultKeepStorage, else a tenth of the disk."""
    collection = (config.builder or {}).get("gc") or {}
    if collection.get("defaultKeepStorage"):
        return size_bytes(str(collection["defaultKeepStorage"]))
    found = os.statvfs(config.data_root)
    return found.f_blocks * found.f_frsize // 10


def _registries(config: Config) -> Registries:
    """What the configuration says about registries; raises ConfigError or InvalidRegistrySetting."""
    hosts, networks = registries.split_insecure(config.insecure_registries)
    counts = {
        "max-concurrent-downloads": config.max_concurrent_downloads,
        "max-concurrent-uploads": config.max_concurrent_uploads,
        "max-download-attempts": config.max_download_attempts,
        "max-layer-files": config.max_layer_files,
    }
    for key, count in counts.items():
        if count < 1:
            raise ConfigError(f"invalid {key.replace('-', ' ')}: {count}")
    proxies = {"http_proxy": config.http_proxy, "https_proxy": config.https_proxy, "no_proxy": config.no_proxy}
    return Registries(
        mirrors=tuple(registries.check_hub_mirror(url) for url in config.registry_mirrors),
        insecure=hosts,
        networks=networks,
        foreign=frozenset(config.allow_nondistributable_artifacts),
        entries=registries.with_passwords(registries.parse_entries(config.registries), _password_in),
        proxies={name: value for name, value in proxies.items() if value},
        downloads=config.max_concurrent_downloads,
        uploads=config.max_concurrent_uploads,
        attempts=config.max_download_attempts,
        limits=registries.Limits(_size("max-layer-size", config.max_layer_size), config.max_layer_files),
    )


def _size(key: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise ConfigError(f"cannot use {text} as the value of {key}: {error}") from error


def _password_in(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError as error:
        raise ConfigError(f"cannot read the password file {path}: {error.strerror}") from error


def _network_settings(config: Config) -> NetworkSettings:
    bridge = config.bridge or "corral0"
    pools = tuple(AddressPool(str(pool["base"]), int(pool["size"])) for pool in config.default_address_pools)
    return NetworkSettings(
        bridge=bridge,
        bip=config.bip,
        fixed_cidr=config.fixed_cidr,
        fixed_cidr_v6=config.fixed_cidr_v6,
        default_gateway=config.default_gateway,
        default_host_ip=config.ip,
        ipv6=config.ipv6,
        packet_filter=config.iptables,
        ip_masq=config.ip_masq,
        icc=config.icc,
        mtu=config.mtu,
        ip_forward=config.ip_forward,
        userland_proxy=config.userland_proxy,
        bridge_names=config.bridge_names,
        host_firewall=config.publish_policy == "host-firewall",
        dns=config.dns,
        exec_root=config.exec_root,
        table="corral" if bridge in ("corral0", "none") else f"corral-{bridge}",
        pools=pools or DEFAULT_POOLS,
    )


async def _recover(services: Services) -> None:
    """Bring what an earlier daemon left in line with the records."""
    engine = services.engine
    filesystem.make_init_layer(engine)
    recover.read_records(engine)
    survivors, exits = await recover.find_survivors(engine)
    lists = {live.id: live.record.host.egress for live in engine.index if live.record.host.egress}
    await engine.networks.open(survivors, lists)
    await asyncio.to_thread(engine.images.recover)
    await recover.settle(engine, services.containers, exits)


async def _shut_down(services: Services) -> None:
    """Let go of everything; containers go on, unless the configuration says otherwise."""
    engine = services.engine
    if not engine.config.live_restore:
        seconds = engine.config.shutdown_timeout
        await services.containers.shut_down(seconds if seconds >= 0 else None)
    for task in list(engine.background):
        task.cancel()
    await services.builder.close()
    for live in engine.index:
        if live.health is not None:
            live.health.stop()
        if live.task is not None:
            live.task.close()
    await engine.networks.close(keep=any(live.has_process for live in engine.index))
    engine.launcher.stop()
    engine.images.catalog.keep_uses()
    engine.images.close()
    engine.db.close()


if __name__ == "__main__":
    sys.exit(main())
