"""The systemd units and a sample of daemon.json.  Pure."""

from __future__ import annotations

SOCKET = """\
[Unit]
Description=Corral's socket
Documentation=man:corral(1)

[Socket]
ListenStream=/run/corral.sock
SocketUser=root
# Its members are root on this machine: whoever may use the socket may mount the host into a container.
SocketGroup={group}
SocketMode=0660

[Install]
WantedBy=sockets.target
"""

SERVICE = """\
[Unit]
Description=Corral, a container engine
Documentation=man:corral(1)
Requires=corral.socket
After=corral.socket network-online.target nftables.service firewalld.service
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={program} -H fd://
ExecReload=/bin/kill -HUP $MAINPID
Restart=on-failure
RestartSec=1
TimeoutStartSec=infinity
# Containers belong to processes of their own (shims) and outlive the daemon: it alone is signalled, and ends them
# itself where it is told to.
KillMode=process
# Limits of containers are corrald's matter, and their cgroups stay below where it put them.
Delegate=yes
TasksMax=infinity
# The last that the kernel takes when memory runs out; containers get a score of their own.
OOMScoreAdjust=-500

# What an engine can be kept from.  Filters of system calls, capability bounds and the private view of files that
# systemd can give are inherited by every container, or are what a container is made with: so none of NoNewPrivileges,
# SystemCallFilter, RestrictNamespaces, CapabilityBoundingSet, PrivateDevices, ProtectSystem, ProtectHome, PrivateTmp.
StateDirectory=corral
StateDirectoryMode=0710
RuntimeDirectory=corral
RuntimeDirectoryMode=0711
# Containers that outlive the daemon have their sockets there.
RuntimeDirectoryPreserve=yes
KeyringMode=private
UnsetEnvironment=PYTHONPATH PYTHONHOME PYTHONSTARTUP LD_PRELOAD LD_LIBRARY_PATH

[Install]
WantedBy=multi-user.target
"""

DAEMON_JSON = """\
{
    "log-level": "info",
    "log-driver": "json-file",
    "log-opts": {"max-size": "20m", "max-file": "5"},
    "live-restore": true,
    "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}],
    "registry-mirrors": []
}
"""
