"""What stands behind every property of a create request and every query parameter: a test of its effect, or a reason.

A row's value is a test (`file::function`, below tests/) that shows the effect in a container or in what the operation
does, or begins with one of these words:

    refused:   the request fails; the reason follows
    ignored:   accepted and without effect, in Docker on Linux too; the reason follows
    untested:  implemented, and no test shows the effect yet (an echo in inspect does not count)

tests/unit/test_properties.py checks that the table is complete and that what it names exists.
"""

from __future__ import annotations

_RUN, _CONTAINERS, _OWN = "compat/test_docker_run.py", "compat/test_docker_containers.py", "compat/test_properties.py"
_HOST, _FLAGS = f"{_OWN}::test_effect_of_a_host_property", f"{_RUN}::test_flags"
_THROTTLE, _WEIGHT = f"{_OWN}::test_effect_of_a_throttle", f"{_OWN}::test_weights_that_the_kernel_does_not_have"
_NETWORK, _BEYOND = "compat/test_docker_network.py", "compat/test_beyond_docker.py"
_EGRESS = "compat/test_egress.py"
_BODIES, _BINDS = "compat/test_bodies.py", "integration/test_binds.py"
_CDI, _VOLUMES = "compat/test_cdi.py", "compat/test_volumes.py"
_VAULT = "integration/test_vault.py::test_a_secret_is_a_file_of_its_containers"
_WINDOWS = "ignored: for Windows"
_THROTTLES = ("BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps")
_RANGES = [f"{kind}IDMappings{part}" for kind in "UG" for part in ("", ".ContainerID", ".HostID", ".Size")]

CONTAINER_CONFIG = {
    "Hostname": _FLAGS,
    "Domainname": f"{_OWN}::test_effect_of_a_portable_property",
    "User": _FLAGS,
    "AttachStdin": "ignored: a note of the client, which attaches by itself",
    "AttachStdout": "ignored: a note of the client, which attaches by itself",
    "AttachStderr": "ignored: a note of the client, which attaches by itself",
    "ExposedPorts": f"{_NETWORK}::test_port_ranges_and_exposed_ports",
    "Tty": "compat/test_docker_terminal.py::test_shell",
    "OpenStdin": f"{_RUN}::test_stdin_is_piped_and_half_closed",
    "StdinOnce": f"{_RUN}::test_stdin_is_piped_and_half_closed",
    "Env": _FLAGS,
    "Cmd": f"{_RUN}::test_output_and_exit_code",
    "Healthcheck": f"{_BEYOND}::test_an_unhealthy_container_is_restarted",
    "Healthcheck.Test": f"{_BEYOND}::test_an_unhealthy_container_is_restarted",
    "Healthcheck.Interval": f"{_BEYOND}::test_an_unhealthy_container_is_restarted",
    "Healthcheck.Timeout": "compat/test_exec_and_stop.py::test_health",
    "Healthcheck.Retries": f"{_BEYOND}::test_an_unhealthy_container_is_restarted",
    "Healthcheck.StartPeriod": "compat/test_exec_and_stop.py::test_failures_while_it_starts_do_not_count",
    "Healthcheck.StartInterval": "compat/test_exec_and_stop.py::test_failures_while_it_starts_do_not_count",
    "ArgsEscaped": _WINDOWS,
    "Image": f"{_RUN}::test_output_and_exit_code",
    "Volumes": f"{_RUN}::test_volume_starts_with_the_images_files",
    "WorkingDir": _FLAGS,
    "Entrypoint": _FLAGS,
    "NetworkDisabled": f"{_OWN}::test_effect_of_a_portable_property",
    "MacAddress": "compat/test_resources.py::test_the_address_of_the_first_network_card",
    "OnBuild": "ignored: belongs to images; Docker drops it from containers",
    "Labels": f"{_CONTAINERS}::test_ps",
    "StopSignal": f"{_CONTAINERS}::test_stop_uses_the_stop_signal_and_then_kills",
    "StopTimeout": f"{_OWN}::test_signals_and_timeouts_of_stop_and_restart",
    "Shell": "compat/test_exec_and_stop.py::test_the_shell_of_a_check",
}

HOST_CONFIG = {
    "CpuShares": _HOST,
    "Memory": f"{_RUN}::test_memory_limit_bites",
    "CgroupParent": f"{_OWN}::test_a_cgroup_parent",
    "BlkioWeight": _WEIGHT,
    "BlkioWeightDevice": _WEIGHT,
    "BlkioDeviceReadBps": _THROTTLE,
    "BlkioDeviceWriteBps": _THROTTLE,
    "BlkioDeviceReadIOps": _THROTTLE,
    "BlkioDeviceWriteIOps": _THROTTLE,
    "CpuPeriod": _HOST,
    "CpuQuota": _HOST,
    "CpuRealtimePeriod": f"{_OWN}::test_real_time",
    "CpuRealtimeRuntime": f"{_BODIES}::test_a_real_time_runtime",
    "CpusetCpus": _FLAGS,
    "CpusetMems": _HOST,
    "Devices": _FLAGS,
    "DeviceCgroupRules": _HOST,
    "DeviceRequests": "compat/test_cdi.py::test_gpus",
    "MemoryReservation": _HOST,
    "MemorySwap": f"{_RUN}::test_memory_limit_bites",
    "MemorySwappiness": _HOST,
    "NanoCpus": f"{_RUN}::test_cpu_limit_is_set",
    "OomKillDisable": _HOST,
    "Init": f"{_RUN}::test_init_reaps_and_passes_signals_on",
    "PidsLimit": _HOST,
    "Ulimits": _FLAGS,
    "CpuCount": _WINDOWS,
    "CpuPercent": _WINDOWS,
    "IOMaximumIOps": _WINDOWS,
    "IOMaximumBandwidth": _WINDOWS,
    "Binds": f"{_RUN}::test_binds",
    "ContainerIDFile": "ignored: the client writes it",
    "LogConfig": f"{_CONTAINERS}::test_log_rotation",
    "LogConfig.Type": f"{_RUN}::test_default_log_driver_none",
    "LogConfig.Config": f"{_CONTAINERS}::test_log_rotation",
    "NetworkMode": _FLAGS,
    "PortBindings": f"{_NETWORK}::test_published_ports",
    "RestartPolicy": f"{_CONTAINERS}::test_restart_policy_counts",
    "RestartPolicy.Name": f"{_CONTAINERS}::test_restart_policy_counts",
    "RestartPolicy.MaximumRetryCount": f"{_CONTAINERS}::test_restart_policy_counts",
    "AutoRemove": f"{_CONTAINERS}::test_run_rm_leaves_nothing",
    "VolumeDriver": "compat/test_resources.py::test_volume_driver",
    "VolumesFrom": f"{_OWN}::test_mounts_of_another_container",
    "Mounts": f"{_RUN}::test_bind_of_a_missing_source",
    "ConsoleSize": "compat/test_docker_terminal.py::test_size_and_resize",
    "Annotations": "compat/test_resources.py::test_annotations_reach_the_runtime",
    "CapAdd": f"{_RUN}::test_capabilities",
    "CapDrop": f"{_RUN}::test_capabilities",
    "CgroupnsMode": f"{_RUN}::test_uts_and_cgroup_namespaces",
    "Dns": _FLAGS,
    "DnsOptions": _HOST,
    "DnsSearch": _FLAGS,
    "ExtraHosts": _HOST,
    "GroupAdd": _FLAGS,
    "IpcMode": f"{_RUN}::test_joining_namespaces_of_a_container",
    "Cgroup": "refused: joining the cgroup of another container",
    "Links": f"{_OWN}::test_a_link_names_another_container",
    "OomScoreAdj": _FLAGS,
    "PidMode": f"{_RUN}::test_joining_namespaces_of_a_container",
    "Privileged": f"{_RUN}::test_privileged",
    "PublishAllPorts": f"{_NETWORK}::test_port_ranges_and_exposed_ports",
    "ReadonlyRootfs": f"{_RUN}::test_read_only_root",
    "SecurityOpt": _HOST,
    "StorageOpt": "integration/test_cgroup_v2.py::test_under_user_mode_linux",
    "Tmpfs": f"{_RUN}::test_tmpfs",
    "UTSMode": f"{_RUN}::test_uts_and_cgroup_namespaces",
    "UsernsMode": "compat/test_userns.py::test_what_belongs_to_the_host_is_refused_and_had_by_opting_out",
    "ShmSize": _FLAGS,
    "Sysctls": _FLAGS,
    "Runtime": "compat/test_runtimes.py",
    "Isolation": "refused: every value but default",
    "MaskedPaths": _HOST,
    "ReadonlyPaths": _HOST,
    # parts of the larger ones
    "BlkioWeightDevice.Path": _WEIGHT,
    "BlkioWeightDevice.Weight": _WEIGHT,
    **{f"{name}.{part}": _THROTTLE for name in _THROTTLES for part in ("Path", "Rate")},
    "Devices.PathOnHost": "compat/test_resources.py::test_a_device_is_used_as_permitted",
    "Devices.PathInContainer": "compat/test_resources.py::test_a_device_is_used_as_permitted",
    "Devices.CgroupPermissions": "compat/test_resources.py::test_a_device_is_used_as_permitted",
    "DeviceRequests.Driver": f"{_CDI}::test_what_cannot_be_had",
    "DeviceRequests.Count": f"{_CDI}::test_gpus",
    "DeviceRequests.DeviceIDs": f"{_CDI}::test_gpus",
    "DeviceRequests.Capabilities": f"{_CDI}::test_gpus",
    "DeviceRequests.Options": "ignored: no driver of ours has any; with the driver `cdi` the start fails",
    "Ulimits.Name": _FLAGS,
    "Ulimits.Soft": _FLAGS,
    "Ulimits.Hard": _FLAGS,
    "PortBindings.HostIp": f"{_NETWORK}::test_published_ports",
    "PortBindings.HostPort": f"{_NETWORK}::test_published_ports",
    "Mounts.Type": f"{_RUN}::test_bind_of_a_missing_source",
    "Mounts.Source": f"{_BINDS}::test_a_missing_source",
    "Mounts.Target": f"{_BINDS}::test_a_bind_without_what_is_below",
    "Mounts.ReadOnly": f"{_BINDS}::test_read_only_with_what_is_below",
    "Mounts.Consistency": "ignored: for Docker Desktop",
    "Mounts.BindOptions": f"{_BINDS}::test_the_propagation_of_a_mount",
    "Mounts.BindOptions.Propagation": f"{_BINDS}::test_the_propagation_of_a_mount",
    "Mounts.BindOptions.NonRecursive": f"{_BINDS}::test_a_bind_without_what_is_below",
    "Mounts.BindOptions.CreateMountpoint": f"{_BINDS}::test_a_missing_source",
    "Mounts.BindOptions.ReadOnlyNonRecursive": f"{_BINDS}::test_read_only_with_what_is_below",
    "Mounts.BindOptions.ReadOnlyForceRecursive": f"{_BINDS}::test_read_only_with_what_is_below",
    "Mounts.BindOptions.IDMapping": f"{_BINDS}::test_owners_are_mapped",
    **{f"Mounts.BindOptions.IDMapping.{part}": f"{_BINDS}::test_owners_are_mapped" for part in _RANGES},
    "Mounts.VolumeOptions": f"{_BODIES}::test_a_volume_with_options",
    "Mounts.VolumeOptions.NoCopy": f"{_BODIES}::test_a_volume_with_options",
    "Mounts.VolumeOptions.Labels": f"{_BODIES}::test_a_volume_with_options",
    "Mounts.VolumeOptions.DriverConfig": f"{_BODIES}::test_a_volume_with_options",
    "Mounts.VolumeOptions.DriverConfig.Name": f"{_BODIES}::test_the_driver_of_a_volume",
    "Mounts.VolumeOptions.DriverConfig.Options": f"{_BODIES}::test_a_volume_with_options",
    "Mounts.VolumeOptions.Subpath": f"{_VOLUMES}::test_subpath_of_a_volume",
    "Mounts.ImageOptions": f"{_VOLUMES}::test_image_mounts",
    "Mounts.ImageOptions.Subpath": f"{_VOLUMES}::test_image_mounts",
    "Mounts.TmpfsOptions": f"{_BODIES}::test_a_tmpfs_with_options",
    "Mounts.TmpfsOptions.SizeBytes": f"{_BODIES}::test_a_tmpfs_with_options",
    "Mounts.TmpfsOptions.Mode": f"{_BODIES}::test_a_tmpfs_with_options",
    "Mounts.TmpfsOptions.Options": f"{_BODIES}::test_a_tmpfs_with_options",
    # beyond Docker
    "NetRate": f"{_BEYOND}::test_what_a_container_sends_and_receives_is_limited",
    "Egress": f"{_EGRESS}::test_an_egress_list",
    "RestartOptions": f"{_BEYOND}::test_restart_options",
    "FromSnapshot": "compat/test_snapshots.py::test_a_fork_starts_as_the_snapshot",
    "RestartOptions.Delay": f"{_BEYOND}::test_restart_options",
    **dict.fromkeys(
        ("RestartOptions.MaxDelay", "RestartOptions.Factor", "RestartOptions.ResetAfter"),
        "unit/engine/test_extensions.py::test_the_delay_grows_as_asked",
    ),
    "RestartOptions.OnUnhealthy": f"{_BEYOND}::test_an_unhealthy_container_is_restarted",
    "Secrets": _VAULT,
    "Configs": _VAULT,
    **{f"Secrets.{part}": _VAULT for part in ("Source", "Target", "UID", "Mode")},
    "Configs.Source": _VAULT,
    "Secrets.GID": "compat/test_userns.py::test_secrets_and_mounts_that_come_later",
    **{f"Configs.{part}": f"{_BODIES}::test_a_config_as_a_file" for part in ("Target", "UID", "GID", "Mode")},
    "Secrets.OnUpdate": "integration/test_vault.py::test_an_update_replaces_the_file_and_acts",
    "Configs.OnUpdate": f"{_BODIES}::test_a_config_as_a_file",
    "DependsOn": f"{_BEYOND}::test_a_start_waits_for_what_it_depends_on",
}

ENDPOINT_SETTINGS = {
    "IPAMConfig": f"{_OWN}::test_addresses_of_an_endpoint",
    "IPAMConfig.IPv4Address": f"{_OWN}::test_addresses_of_an_endpoint",
    "IPAMConfig.IPv6Address": f"{_BODIES}::test_a_fixed_ipv6_address",
    "IPAMConfig.LinkLocalIPs": "compat/test_docker_network.py::test_link_local_addresses",
    "Links": "compat/test_parameters.py::test_endpoints",
    "MacAddress": f"{_OWN}::test_addresses_of_an_endpoint",
    "Aliases": f"{_NETWORK}::test_user_defined_network_with_names",
    "DriverOpts": f"{_BODIES}::test_sysctls_and_the_name_of_an_interface",
    "GwPriority": f"{_OWN}::test_a_network_of_priority_has_the_default_route",
    "NetworkID": "ignored: told by inspect; the network is the name of the entry",
    "EndpointID": "ignored: told by inspect",
    "Gateway": "ignored: told by inspect",
    "IPAddress": "ignored: told by inspect",
    "IPPrefixLen": "ignored: told by inspect",
    "IPv6Gateway": "ignored: told by inspect",
    "GlobalIPv6Address": "ignored: told by inspect",
    "GlobalIPv6PrefixLen": "ignored: told by inspect",
    "DNSNames": "ignored: told by inspect",
}

QUERIES = {
    "GET /containers/json": {
        "all": f"{_CONTAINERS}::test_ps",
        "limit": f"{_CONTAINERS}::test_ps",
        "size": f"{_CONTAINERS}::test_ps",
        "filters": f"{_CONTAINERS}::test_ps",
    },
    "POST /containers/create": {
        "name": f"{_RUN}::test_cidfile_and_name",
        "platform": "compat/test_parameters.py::test_a_container_for_another_platform",
    },
    "GET /containers/{id}/json": {"size": f"{_OWN}::test_one_sample_and_sizes"},
    "GET /containers/{id}/top": {"ps_args": f"{_CONTAINERS}::test_top_and_stats"},
    "GET /containers/{id}/logs": {
        "follow": f"{_CONTAINERS}::test_logs_follow_until_the_end",
        **dict.fromkeys(("stdout", "stderr", "since", "until", "timestamps", "tail"), f"{_CONTAINERS}::test_logs"),
    },
    "GET /containers/{id}/stats": {
        "stream": f"{_CONTAINERS}::test_top_and_stats",
        "one-shot": f"{_OWN}::test_one_sample_and_sizes",
    },
    "POST /containers/{id}/resize": dict.fromkeys("hw", "compat/test_docker_terminal.py::test_size_and_resize"),
    "POST /containers/{id}/start": {"detachKeys": "ignored: the client attaches, with its own keys"},
    "POST /containers/{id}/stop": {
        "signal": f"{_OWN}::test_signals_and_timeouts_of_stop_and_restart",
        "t": f"{_CONTAINERS}::test_stop_uses_the_stop_signal_and_then_kills",
    },
    "POST /containers/{id}/restart": dict.fromkeys(
        ("signal", "t"), f"{_OWN}::test_signals_and_timeouts_of_stop_and_restart"
    ),
    "POST /containers/{id}/kill": {"signal": f"{_CONTAINERS}::test_life_of_a_container_and_its_events"},
    "POST /containers/{id}/rename": {"name": f"{_CONTAINERS}::test_names"},
    "POST /containers/{id}/attach": {
        "detachKeys": "compat/test_docker_terminal.py::test_detach_keys_and_attach_again",
        "logs": f"{_OWN}::test_attach_with_past_output",
        **dict.fromkeys(("stream", "stdin", "stdout", "stderr"), f"{_CONTAINERS}::test_attach_to_what_runs"),
    },
    "GET /containers/{id}/attach/ws": {
        "detachKeys": "compat/test_websocket.py::test_detach_keys",
        "logs": "compat/test_websocket.py::test_before_the_start_and_with_past_output",
        **dict.fromkeys(("stream", "stdin", "stdout", "stderr"), "compat/test_websocket.py::test_input_and_output"),
    },
    "POST /containers/{id}/wait": {"condition": f"{_CONTAINERS}::test_wait_conditions"},
    "DELETE /containers/{id}": {
        "v": "compat/test_docker_prune.py::test_rm_v_takes_anonymous_volumes_along",
        "force": f"{_CONTAINERS}::test_rm",
        "link": "refused: there are no links that could be removed by themselves",
    },
    "HEAD /containers/{id}/archive": {"path": "compat/test_docker_cp.py::test_what_cannot_be_copied"},
    "GET /containers/{id}/archive": {"path": "compat/test_docker_cp.py::test_file_in_and_out"},
    "PUT /containers/{id}/archive": {
        "path": "compat/test_docker_cp.py::test_file_in_and_out",
        "noOverwriteDirNonDir": "compat/test_parameters.py::test_a_folder_is_not_replaced_by_a_file",
        "copyUIDGID": "compat/test_docker_cp.py::test_archive_mode_gives_files_to_the_user_of_the_container",
    },
    "POST /containers/prune": {"filters": "compat/test_docker_prune.py::test_container_prune"},
    "GET /events": dict.fromkeys(
        ("since", "until", "filters"), "compat/test_api.py::test_events_of_the_past_and_filters"
    ),
    "GET /system/df": dict.fromkeys(("type", "verbose"), "compat/test_parameters.py::test_disk_usage"),
    "POST /exec/{id}/resize": dict.fromkeys("hw", "compat/test_docker_terminal.py::test_exec_with_a_terminal"),
    "GET /volumes": {"filters": "compat/test_volumes.py::test_filters_and_events"},
    "PUT /volumes/{name}": {"version": "refused: cluster volumes belong to a swarm"},
    "DELETE /volumes/{name}": {"force": "compat/test_parameters.py::test_removing_what_is_not_there"},
    "POST /volumes/prune": {
        "filters": "compat/test_docker_prune.py::test_volume_prune_takes_anonymous_ones_and_with_all_the_others"
    },
}

_SAME, _EXEC = "compat/test_resources.py::test_update_of_each", f"{_BODIES}::test_exec"
_PORTS = f"{_BEYOND}::test_a_port_moves_within_a_container_and_waits_for_a_start"
_LATER = "ignored: update changes limits and the restart policy, as Docker's does"
_NOT_UPDATED = (
    "BlkioWeightDevice BlkioWeightDevice.Path BlkioWeightDevice.Weight CgroupParent CpuCount CpuPercent "
    "DeviceCgroupRules Devices Devices.PathOnHost Devices.PathInContainer Devices.CgroupPermissions DeviceRequests "
    "DeviceRequests.Driver DeviceRequests.Count DeviceRequests.DeviceIDs DeviceRequests.Capabilities "
    "DeviceRequests.Options IOMaximumBandwidth IOMaximumIOps MemorySwappiness OomKillDisable Ulimits Ulimits.Name "
    "Ulimits.Soft Ulimits.Hard"
).split()

BODIES = {
    "POST /containers/{id}/exec": {
        **dict.fromkeys(
            ("AttachStdin", "AttachStdout", "AttachStderr"), f"{_BODIES}::test_exec_attaches_what_is_asked_for"
        ),
        "ConsoleSize": "compat/test_exec_and_stop.py::test_exec_console_size",
        "DetachKeys": f"{_BODIES}::test_exec_is_left_with_its_own_keys",
        "Privileged": f"{_BODIES}::test_exec_with_privileges",
        **dict.fromkeys(("Tty", "Env", "Cmd", "User", "WorkingDir"), _EXEC),
        "Timeout": "compat/test_exec_and_stop.py::test_an_exec_ends_with_its_time",
    },
    "POST /exec/{id}/start": {
        "Detach": f"{_BODIES}::test_exec_goes_on_by_itself",
        "Tty": "ignored: what the exec was created with counts",
        "ConsoleSize": "compat/test_exec_and_stop.py::test_exec_console_size",
    },
    "POST /containers/{id}/update": {
        "CpuShares": f"{_OWN}::test_update_changes_what_is_said_and_nothing_else",
        "CpuQuota": _SAME,
        "CpuPeriod": _SAME,
        "CpusetMems": _SAME,
        "MemoryReservation": _SAME,
        "PidsLimit": f"{_OWN}::test_update_changes_what_is_said_and_nothing_else",
        **dict.fromkeys(("NanoCpus", "Memory", "MemorySwap", "CpusetCpus"), f"{_BODIES}::test_update"),
        "CpuRealtimePeriod": f"{_BODIES}::test_a_real_time_runtime",
        "CpuRealtimeRuntime": f"{_BODIES}::test_a_real_time_runtime",
        "BlkioWeight": f"{_BODIES}::test_update_of_a_weight",
        **dict.fromkeys(_NOT_UPDATED, _LATER),
        **{f"{name}{part}": _LATER for name in _THROTTLES for part in ("", ".Path", ".Rate")},
        **dict.fromkeys(
            ("RestartPolicy", "RestartPolicy.Name", "RestartPolicy.MaximumRetryCount"),
            f"{_BODIES}::test_update_of_the_restart_policy",
        ),
        # beyond Docker
        **{name: HOST_CONFIG[name] for name in HOST_CONFIG if name.startswith("RestartOptions")},
        **dict.fromkeys(
            ("EnvAdd", "EnvRemove", "LabelAdd", "LabelRemove"), f"{_BEYOND}::test_environment_and_labels_are_edited"
        ),
        **dict.fromkeys(("PortAdd", "PortAdd.HostPort", "PortRemove"), _PORTS),
        "Egress": f"{_EGRESS}::test_an_egress_list",
        "PortAdd.HostIp": "compat/test_bodies.py::test_a_port_is_added_on_one_address",
    },
    "POST /volumes/create": dict.fromkeys(
        ("Name", "Driver", "DriverOpts", "Labels"), f"{_BODIES}::test_a_volume_is_made_as_asked"
    ),
}
