"""Beyond Docker: `corral image gc` and `corral system check`."""

from __future__ import annotations

from corral.cli.command import Command, Session
from corral.cli.flags import Flag
from corral.cli.units import human_size


def _collect(session: Session) -> int:
    dry_run = session.flags["dry-run"]
    found = session.client.post("/images/gc", {"dry-run": dry_run or None})
    for one in found["Removed"]:
        print(f"{', '.join(one['Names']) or one['Id']}: {human_size(float(one['Size']))}")
    print(f"{'Would reclaim' if dry_run else 'Total reclaimed space'}: {human_size(float(found['SpaceReclaimed']))}")
    return 0


def _check(session: Session) -> int:
    found = session.client.post("/system/check", {"repair": session.flags["repair"] or None})
    for one in found["Problems"]:
        done = "repaired: " if one["Repaired"] else "can be repaired: " if one["Repair"] else ""
        print(f"{one['Kind']} {one['Subject']}: {one['Detail']}" + (f" ({done}{one['Repair']})" if done else ""))
    counts = ", ".join(f"{count} {kind}" for kind, count in found["Checked"].items())
    left = sum(1 for one in found["Problems"] if not one["Repaired"])
    print(f"Checked {counts}: {left or 'no'} problem{'' if left == 1 else 's'}{' left' * session.flags['repair']}")
    return 1 if left else 0


COLLECT = Command(
    _collect,
    "Remove the images that the daemon's policy says, longest unused first",
    "[OPTIONS]",
    (Flag("dry-run", "", "bool", "Only show what would be removed"),),
)
CHECK = Command(
    _check,
    "Verify everything in the daemon's store: every blob, layer, snapshot and record",
    "[OPTIONS]",
    (Flag("repair", "", "bool", "Put right what can be"),),
)
