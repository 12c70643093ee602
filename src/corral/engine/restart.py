"""Restart policies: from how a run ended to what happens next."""

from __future__ import annotations

from dataclasses import dataclass

from corral.wire.containers import RestartPolicy

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
_LONG_RUN_S = 10.0


@dataclass(frozen=True)
class Decision:
    """Whether to start again, and after how many seconds."""

    again: bool
    delay_s: float = 0.0


def decide(
    policy: RestartPolicy, *, exit_code: int, restarts: int, ran_s: float, last_delay_s: float, stopped_by_user: bool
) -> Decision:
    """What Docker does: the delay doubles up to a minute, and a run of ten seconds starts it over."""
    if stopped_by_user or not _applies(policy, exit_code, restarts):
        return Decision(False)
    if ran_s >= _LONG_RUN_S or last_delay_s == 0.0:
        return Decision(True, FIRST_DELAY_S)
    return Decision(True, min(last_delay_s * 2, LONGEST_DELAY_S))


def _applies(policy: RestartPolicy, exit_code: int, restarts: int) -> bool:
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        return policy.maximum_retry_count == 0 or restarts < policy.maximum_retry_count
    return False


def after_boot(policy: RestartPolicy, *, was_alive: bool, exit_code: int, restarts: int, stopped_by_user: bool) -> bool:
    """Whether a container that has run before, and has no process now, is started when the daemon starts."""
    if policy.name == "always":
        return True  # even if somebody stopped it: that lasts until the daemon starts again, as in Docker
    if policy.name == "unless-stopped":
        return not stopped_by_user
    if policy.name == "on-failure":
        failed = was_alive or exit_code != 0
        return not stopped_by_user and failed and _applies(policy, exit_code or 255, restarts)
    return False
