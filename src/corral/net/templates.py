"""Configuration-only networks: a name for options and subnets that other networks are made from.  Pure."""

from __future__ import annotations

from dataclasses import replace

from corral.net import ipam
from corral.net.model import NetworkRecord, NetworkRefused, NetworkSpec


class TemplateMissing(NetworkRefused):
    """No configuration-only network has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'configuration network "{name}" does not exist')


class TemplateInUse(NetworkRefused):
    """A network was made from it and is still there."""

    def __init__(self, name: str) -> None:
        super().__init__(f'error while removing network: configuration network "{name}" is in use')


def check(spec: NetworkSpec) -> None:
    """Refuse a template that says more than a template can, or that follows another; NetworkRefused, InvalidPool."""
    if spec.internal or spec.attachable:
        raise NetworkRefused(
            "configuration network can only contain network specific fields. "
            "Network operator fields like [ ingress | internal | attachable | scope ] are not supported."
        )
    if spec.config_from:
        raise NetworkRefused("a configuration network cannot depend on another configuration network")
    ipam.complete(spec.pools)


def filled(spec: NetworkSpec, template: NetworkRecord) -> NetworkSpec:
    """A request with what its template says; NetworkRefused if it says something of that itself."""
    plain = NetworkSpec(spec.name)
    same = (spec.ipam_driver, spec.ipv4, spec.ipv6) == (plain.ipam_driver, plain.ipv4, plain.ipv6)
    if not same or spec.labels or spec.pools or spec.ipam_options:
        raise NetworkRefused(
            "user specified configurations are not supported if the network depends on a configuration network"
        )
    if spec.options:
        raise NetworkRefused(
            "network driver options are not supported if the network depends on a configuration network"
        )
    return replace(
        spec,
        ipv4=template.ipv4,
        ipv6=template.ipv6,
        pools=template.pools,
        ipam_driver=template.ipam_driver,
        ipam_options=template.ipam_options,
        options=dict(template.options),
        labels=dict(template.labels),
    )
