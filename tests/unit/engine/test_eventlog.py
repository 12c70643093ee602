"""Events on disk: bounded, readable after damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corral.engine.eventlog import EventLog


def event(number: int) -> dict[str, Any]:
    return {"Type": "container", "Action": "start", "timeNano": number}


def times(log: EventLog, since: int = 0, until: int | None = None) -> list[int]:
    return [found["timeNano"] for found in log.read(since, until)]


def test_events_outlive_the_log(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "e"))
    for number in range(5):
        log.append(event(number))
    log.close()
    again = EventLog(str(tmp_path / "e"))
    again.append(event(5))
    assert times(again) == [0, 1, 2, 3, 4, 5]
    assert times(again, 2, 4) == [2, 3, 4]


def test_the_oldest_go(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path), limit=1000)
    for number in range(500):
        log.append(event(number))
    found = times(log)
    assert found == list(range(found[0], 500)) and 15 < len(found) < 60
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2000


def test_a_torn_line_costs_itself_alone(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path))
    log.append(event(1))
    log.close()
    with (tmp_path / "current").open("ab") as file:
        file.write(b'[1]\n{"timeNano": "x"}\n{"Type": "con')
    log = EventLog(str(tmp_path))
    log.append(event(2))
    assert times(log) == [1, 2]


def test_a_full_disk_is_told_once_per_event_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = EventLog(str(tmp_path))

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.write", full)
    log.append(event(1))
    assert "No space left" in caplog.text
    monkeypatch.undo()
    log.append(event(2))
    assert times(log) == [2]
