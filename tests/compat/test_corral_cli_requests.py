"""What `corral` asks of a daemon, compared with what the stock docker CLI asks for the same words."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_plus

import pytest

from tests.support.recorder import Recorder, essence, recorder

_CORRAL = str(Path(__file__).resolve().parents[2] / "bin" / "corral")
_DOCKER = shutil.which("docker")
_TIMEOUT_S = 20

pytestmark = pytest.mark.skipif(_DOCKER is None, reason="compares with the docker CLI, which is not installed")


@pytest.fixture(scope="module")
def engine() -> Iterator[Recorder]:
    with recorder() as started:
        yield started


def _asked(engine: Recorder, program: str, words: list[str]) -> list[object]:
    engine.requests.clear()
    environment = {
        "PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": engine.host, "DOCKER_CLI_HINTS": "false",
        "PASSED_ON": "yes",
    }  # fmt: skip
    subprocess.run(
        [program, *words],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    return [(method, unquote_plus(path), essence(body)) for method, path, body in engine.requests]


_RUN = """
run image
run -d --name web -p 8080:80 -p 127.0.0.1::90/udp -p 9000-9002:90-92 -p [::1]:5:5 --expose 7-9 \
--expose 53/udp image cmd -x y
run -p 80 -P -p target=81,published=8181,protocol=tcp image
run --rm -i image sh -c "echo hi"
run -e A=b -e PASSED_ON -e ABSENT -e C= --label x=y -l z image
run -v /a:/b -v vol:/c:ro -v /anonymous --tmpfs /t:size=1m,mode=700 --tmpfs /u image
run --mount type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave --mount \
type=volume,src=v,dst=/v,volume-nocopy image
run --mount type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770 --mount \
type=volume,dst=/x,volume-driver=d,volume-opt=a=b image
run --mount type=volume,src=v,dst=/v,volume-label=a=b,volume-subpath=s --mount \
type=bind,src=/a,dst=/b,bind-recursive=disabled image
run -m 64m --memory-swap -1 --memory-reservation 32m --memory-swappiness 5 --oom-kill-disable image
run --cpus 1.5 --cpuset-cpus 0-1 --cpuset-mems 0 -c 512 image
run --cpu-period 1000 --cpu-quota 500 --pids-limit 10 --blkio-weight 100 --blkio-weight-device /dev/sda:200 image
run --device /dev/null --device /dev/zero:/dev/x:r --device-cgroup-rule "c 1:3 rwm" --device-read-bps /dev/sda:1mb image
run --device-write-iops /dev/sda:10 --ulimit nofile=10:20 --ulimit core=-1 --ulimit nproc=5 image
run --cap-add NET_ADMIN --cap-drop ALL --privileged --security-opt no-new-privileges --security-opt \
seccomp=unconfined image
run --security-opt systempaths=unconfined --security-opt label=disable image
run -w /w -u 1:2 --group-add 5 --hostname h --domainname d --entrypoint e image c
run --entrypoint "" image
run --restart on-failure:3 --stop-signal INT --stop-timeout 7 --init --read-only image
run --restart always image
run --health-cmd "test x" --health-interval 1m30s --health-timeout 2s --health-retries 3 --health-start-period 1s image
run --no-healthcheck image
run --network none image
run --network host image
run --network container:other image
run --network net --ip 10.0.0.5 --network-alias a --network-alias b --link x:y --mac-address 02:42:ac:11:00:02 image
run --network name=net,alias=one,ip=10.0.0.6,driver-opt=a=b --network second image
run --link x image
run --add-host a:1.2.3.4 --add-host b=::1 --add-host c:host-gateway --dns 1.1.1.1 --dns-option \
ndots:1 --dns-search x image
run --log-driver json-file --log-opt max-size=1m --log-opt max-file=2 image
run --pid host --ipc host --uts host --userns host --cgroupns private --cgroup-parent /x image
run --shm-size 128m --sysctl net.core.somaxconn=5 --annotation a=b --runtime crun --storage-opt \
size=1G --isolation default image
run --gpus all image
run --gpus "device=0,1" image
run --volumes-from a:ro --volume-driver d --oom-score-adj 5 --kernel-memory 64m image
run --platform linux/amd64 --pull never -q image
run -t image
run -a stdout image
run -a stdin -i image
create --name x -it image cmd
create --cidfile /nonexistent/x -i image
""".strip().splitlines()

_OTHERS = """
stop -t 3 -s INT x
restart --time 5 x
kill -s HUP x
rm -fv x
pause x
rename a b
update -m 1g --cpus 2 --restart always --pids-limit 5 x
top x aux
diff x
wait x
start x
port x
ps -a -n 3 --filter status=exited --filter label=a=b -s
images -a --filter dangling=true repo
rmi -f --no-prune x
rmi --platform linux/amd64,linux/arm/v7 x
search --limit 3 --filter stars=2 --filter is-official=true term
plugin ls --filter enabled=true
tag a b:c
history x
image inspect reg:5000/a/b:c
inspect --type container -s x
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 --aux-address \
a=10.1.0.9 -o a=b --label l=m --internal n
network create --ipv6 --attachable -d macvlan --ipam-opt a=b n
network connect --ip 10.1.0.5 --alias a --link b:c n x
network disconnect -f n x
network ls --filter driver=bridge
network prune -f --filter until=1h
volume create -d local -o type=tmpfs --label a=b v
volume create
volume ls --filter dangling=true
volume rm -f v
volume prune -af
image prune -af
container prune -f --filter label=x
commit -a me -m msg -c "CMD x" -p=false x repo:tag
exec -e A=b -w /w -u 5 x cmd arg
export x
save a b:c
pull reg.example:5000/a/b:c
pull -a x
push reg.example/a
import - repo:tag
system df
version
info
""".strip().splitlines()


@pytest.mark.parametrize("line", [*_RUN, *_OTHERS])
def test_asks_what_docker_asks(engine: Recorder, line: str) -> None:
    import shlex

    words = shlex.split(line)
    expected = _asked(engine, _DOCKER or "", words)
    assert _asked(engine, _CORRAL, words) == expected
    if not line.startswith("create --cidfile"):
        assert expected
