"""Restart policies: from how a run ended to what happens next."""

from __future__ import annotations

from dataclasses import dataclass

from corral.wire.containers import RestartOptions, RestartPolicy

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
_LONG_RUN_S = 10.0


@dataclass(frozen=True)
class Decision:
    """Whether to start again, and after how many seconds."""

    again: bool
    delay_s: float = 0.0


def decide(
    policy: RestartPolicy, *, exit_code: int, restarts: int, ran_s: float, last_delay_s: float, stopped_by_user: bool,
    options: RestartOptions | None = None,
) -> Decision:  # fmt: skip
    """What Docker does, unless `options` say otherwise: the delay doubles up to a minute, and a run of ten seconds
    starts it over."""
    if stopped_by_user or not _applies(policy, exit_code, restarts):
        return Decision(False)
    options = options or RestartOptions()
    first_s = options.delay / 1e9 or FIRST_DELAY_S
    longest_s = options.max_delay / 1e9 or max(LONGEST_DELAY_S, first_s)
    if last_delay_s == 0.0 or ran_s >= (options.reset_after / 1e9 or _LONG_RUN_S):
        return Decision(True, first_s)
    return Decision(True, min(last_delay_s * (options.factor or 2), longest_s))


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
