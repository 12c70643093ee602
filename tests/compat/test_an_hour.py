"""An hour's work of somebody who is used to docker, done once with docker and once with `corral` under its name.

Both work through the same script, with the same corrald, in a shell; every line's output, errors and exit status must
be the same, but for ids, times and what is by chance.  What docs/cli.md says of the result is checked here, too.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.corral import BIN, CORRAL
from tests.support.daemon import IMAGE, Daemon

_TIMEOUT_S = 60
_PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"

pytestmark = pytest.mark.skipif(
    shutil.which("docker") is None, reason="compares with the docker CLI, which is not here"
)

# A heading, then lines of a shell; `docker` is one or the other.  What a line leaves behind is there for the next.
_HOUR = {
    "looking around": r"""
docker version --format '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}}'
docker info --format '{{.Driver}} {{.CgroupVersion}} {{.Containers}} {{json .Swarm.LocalNodeState}}'
docker ps
docker ps -a
docker images
docker images --format json IMAGE | grep -c busybox
docker volume ls
docker network ls --format 'table {{.Name}}\t{{.Driver}}\t{{.Scope}}'
docker system df --format '{{.Type}} {{.TotalCount}}'
docker context ls --format '{{.Name}} {{.Current}}'
""",
    "first containers": r"""
docker run IMAGE echo hello
docker run --rm IMAGE sh -c 'echo out; echo err >&2; exit 3'
docker run --rm -i IMAGE wc -c < Dockerfile
docker run --rm IMAGE no-such-command
docker run --rm --entrypoint /bin/ls IMAGE /home
docker run --rm -e A=b -e PASSED --env-file variables IMAGE sh -c 'echo $A $C'
docker run --rm -w /tmp -u 1000:50 IMAGE sh -c 'pwd; id -u; id -g'
docker run --rm --hostname box --add-host db:10.0.0.9 IMAGE sh -c 'hostname; grep db /etc/hosts'
docker run --rm -m 64m --cpus 0.5 --pids-limit 50 IMAGE true
docker run --rm --read-only --tmpfs /scratch IMAGE sh -c 'touch /x; touch /scratch/x && echo fine'
docker run --rm -v "$PWD/site:/site:ro" IMAGE cat /site/index.html
docker run --rm --network none IMAGE ip -o link
docker run -d --name web -p 127.0.0.1:8088:80 -l tier=front IMAGE httpd -f -p 80 -h /srv
docker run -d --name worker --restart on-failure:3 IMAGE sh -c 'echo working; exec sleep 1000'
docker ps --format '{{.Names}} {{.Image}} {{.Status}} {{.Ports}}'
docker ps --format '{{.Names}} {{.Label "tier"}}'
docker ps --format 'table {{.Names}}\t{{.Label "com.example.some-thing"}}'
docker ps --format '{{json .}}' | grep -c '"Names":"web"'
docker ps --filter label=tier=front --format '{{.Names}}'
docker ps -a --filter status=exited --format '{{.Status}}'
docker port web
docker port web 80
docker run -d --name web IMAGE true
docker run -d --name other -p 127.0.0.1:8088:80 IMAGE sleep 1
docker rm other
""",
    "inside": r"""
docker exec web sh -c 'mkdir -p /srv && echo served > /srv/index.html'
docker exec web wget -qO- http://127.0.0.1/
docker exec -w /srv -e X=y web sh -c 'pwd; echo $X; exit 7'
docker exec -u bob web id -un
docker exec web nothing-like-this
docker exec nosuch true
docker exec -d web touch /tmp/made
docker exec web ls /tmp/made
echo input | docker exec -i web cat
docker top web -o args
docker logs worker
docker logs --tail 1 worker
docker logs --since 1h worker
docker logs nosuch
docker stats --no-stream --format '{{.Name}}' web
docker diff web
docker inspect -f '{{.State.Status}} {{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}' web worker
docker inspect -f '{{json .Config.Labels}}' web
docker inspect nosuch
docker inspect web | grep -c '"Id"'
docker inspect --type network web
""",
    "files": r"""
docker cp site/index.html web:/srv/copied.html
docker cp web:/srv/copied.html back.html && cat back.html
docker cp web:/srv - | tar -t | sort
tar -C site -c . | docker cp - web:/srv
docker exec web ls /srv
docker cp web:/nosuch .
docker cp nosuch:/x .
docker export worker | tar -t | grep -c bin/
docker volume create data
docker volume create --label keep=yes kept
docker run --rm -v data:/data IMAGE sh -c 'echo stored > /data/file'
docker run --rm -v data:/data:ro IMAGE cat /data/file
docker run --rm --mount type=volume,src=data,dst=/d IMAGE ls /d
docker run --rm --mount type=bind,src=/nosuch,dst=/d IMAGE true
docker volume ls -q
docker volume ls --filter label=keep=yes --format '{{.Name}}'
docker volume inspect data -f '{{.Name}} {{.Driver}} {{.Scope}}'
docker volume inspect nosuch
docker volume rm nosuch
docker volume prune -f
docker volume rm kept
""",
    "images": r"""
docker build -q -t app:1 . | cut -c 1-7
docker run --rm app:1
docker run --rm app:1 echo other
docker build -q -t app:2 --build-arg WHO=you --label v=2 . | cut -c 1-7
docker run --rm app:2
docker build -t app:3 --target nosuch . 2>&1 | grep -o 'target stage.*found'
docker images app --format '{{.Repository}}:{{.Tag}}'
docker image inspect app:2 -f '{{index .Config.Labels "v"}} {{.Config.Cmd}} {{.Os}}'
docker history app:1 --format '{{.CreatedBy}}'
docker tag app:1 reg.test:5000/team/app:1
docker tag app:1 'BAD NAME'
docker tag nosuch x:1
docker save app:1 app:2 -o app.tar && tar -tf app.tar | grep -c manifest.json
docker rmi app:1 reg.test:5000/team/app:1 > /dev/null; echo $?
docker load -i app.tar
docker load < app.tar
docker load -i nosuch.tar
docker commit -m 'a change' -c 'CMD ["echo","committed"]' web committed:1 | cut -c 1-7
docker run --rm committed:1
docker export worker | docker import -c 'CMD ["echo","imported"]' - imported:1 | cut -c 1-7
docker run --rm imported:1
docker rmi nosuch
docker rmi -f nosuch:2
docker pull 127.0.0.1:1/nosuch
docker push 127.0.0.1:1/nosuch
docker images -f dangling=true -q
""",
    "networks": r"""
docker network create --subnet 10.77.0.0/24 --label n=1 back > /dev/null; echo $?
docker network create back
docker run -d --name db --network back --network-alias database --ip 10.77.0.10 IMAGE sleep 1000
docker run --rm --network back IMAGE ping -c 1 -W 2 database | grep -c '1 packets received'
docker network connect --alias front back web
docker exec db wget -qO- http://front/copied.html
docker network inspect back -f '{{range .Containers}}{{.Name}} {{end}}{{(index .IPAM.Config 0).Subnet}}'
docker network ls --filter label=n=1 --format '{{.Name}}'
docker network disconnect back web
docker network disconnect back web
docker network rm back
docker network rm bridge
docker run --rm --network container:db IMAGE hostname -i
docker run --rm --network nosuch IMAGE true
docker rm -f db
docker network rm back
docker network prune -f
""",
    "life and death": r"""
docker pause web
docker ps --filter name=web --format '{{.Status}}'
docker exec web true
docker unpause web
docker update -m 128m --memory-swap 128m --restart no worker
docker inspect -f '{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}' worker
docker rename worker labourer
docker rename labourer web
docker restart -t 0 labourer
docker stop -t 0 labourer
docker stop -t 0 labourer
docker wait labourer
docker start labourer
docker kill -s TERM nosuch
docker kill -s KILL labourer
docker kill labourer
docker create --name later IMAGE sh -c 'echo later; exit 4' | wc -c
docker start -a later
docker run -d --name sick --health-cmd false --health-interval 100ms --health-retries 1 IMAGE sleep 1000
for n in $(seq 200); do docker inspect -f '{{.State.Health.Status}}' sick | grep unhealthy && break; sleep 0.1; done
docker attach nosuch
docker rm web
docker rm -f web sick later
docker rm -f web
docker events --since 1h --until 0s --filter container=web --filter event=create --format '{{.Action}}' | sort -u
docker events --since 1h --until 0s --filter volume=kept --filter event=destroy --format '{{.Actor.ID}}' | sort -u
""",
    "several daemons": r"""
docker context create far --docker host=tcp://127.0.0.1:1 --description 'far away'
docker context create far --docker host=tcp://127.0.0.1:1
docker context ls --format '{{.Name}} {{.Description}}' | grep far
docker --context far ps
docker context inspect far -f '{{.Name}} {{.Endpoints.docker.Host}}'
docker context export far far.tar && tar -tf far.tar | tr -d /
docker context import near far.tar
docker context rm far near
docker context use nosuch
docker -H unix:///nosuch ps
docker -H tcp://127.0.0.1:1 run IMAGE
docker -H nosuch://x ps
""",
    "slips": r"""
docker pss
docker ps --al
docker run
docker run --no-such-flag IMAGE
docker run -p 99999:80 IMAGE true
docker run -v relative/path:/x:bad IMAGE true
docker run --memory lots IMAGE true
docker container 2>/dev/null
docker image no-such-command
docker ps --format '{{.Nope}}' 2> /dev/null
docker ps -aq --format '{{.Image}}' | head -1 | wc -c
docker ps --filter nope=1
docker rm
docker login -u me -p secret 127.0.0.1:1
docker logout 127.0.0.1:1
""",
    "tidying up": r"""
docker ps -aq | wc -l
docker container prune -f --filter label=nosuch
docker container prune -f > /dev/null; echo $?
docker image prune -f > /dev/null; echo $?
docker rmi app:1 app:2 committed:1 imported:1 > /dev/null; echo $?
docker volume rm data
docker volume prune -af
docker network prune -f
docker builder prune -af | tail -1 | cut -d: -f1
docker system prune -f | tail -1 | cut -d: -f1
docker ps -a
docker images --format '{{.Repository}}:{{.Tag}}'
docker volume ls -q
""",
}


@dataclass(frozen=True)
class Step:
    """What came of a line."""

    line: str
    status: int
    output: str
    errors: str


def _work_through(daemon: Daemon, program: str, folder: Path) -> dict[str, list[Step]]:
    """The whole hour with one client."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "docker").symlink_to(program)
    work = folder / "work"
    (work / "site").mkdir(parents=True)
    (work / "site" / "index.html").write_text("<h1>here</h1>\n")
    (work / "variables").write_text("# some\nC=d\n")
    (work / "Dockerfile").write_text(
        f"FROM {IMAGE}\nARG WHO=me\nCOPY site /site\nRUN echo $WHO > /who\nWORKDIR /site\n"
        'CMD ["cat", "/who", "index.html"]\n'
    )
    environment = {
        "PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": str(folder), "DOCKER_HOST": daemon.host, "LANG": "C.UTF-8",
        "DOCKER_CLI_HINTS": "false", "PASSED": "along", "DOCKER_BUILDKIT": "0",
    }  # fmt: skip

    def step(line: str) -> Step:
        done = subprocess.run(
            ["sh", "-c", line.replace("IMAGE", IMAGE)],
            cwd=work, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        output, errors = (
            data.decode(errors="replace").replace(str(folder), "HOME") for data in (done.stdout, done.stderr)
        )
        return Step(line, done.returncode, output, errors)

    return {title: [step(line) for line in text.strip().splitlines()] for title, text in _HOUR.items()}


_CHANCE = [
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+0000 UTC|Z)?", "TIME"),
    (r"(Less than a second|\d+ seconds?|About a minute|\d+ minutes?)( ago)?", "AGE"),
    (r"on endpoint \w+", "on endpoint NAME"),
    (r"\d+(\.\d+)?[kMG]?B\b", "SIZE"),
    (r"corrald-\w+", "corrald-X"),
    (r"dial tcp 127\.0\.0\.1:\d+->", "dial tcp "),
]
# What corral says more, and what its name is.
_OURS = [
    (r"\n\nDid you mean '[^']*'\?", ""),
    (r" \(did you mean [^)]*\)", ""),
    (r"(?m)^Hint: .*\n", ""),
    (r"\bcorral(?=[: ])", "docker"),
]
# What docker says of its own.
_THEIRS = [(r"DEPRECATED: The legacy builder(.*\n){3}\n?", "")]


def _same(text: str, *also: tuple[str, str]) -> str:
    for pattern, word in (*also, *_CHANCE):
        text = re.sub(pattern, word, text)
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


@pytest.mark.timeout(600)
def test_nobody_notices_a_difference(own_daemon: Daemon, tmp_path: Path) -> None:
    docker = shutil.which("docker")
    assert docker
    theirs = _work_through(own_daemon, docker, tmp_path / "docker")
    own_daemon.load_image()
    ours = _work_through(own_daemon, CORRAL, tmp_path / "corral")
    differences = []
    for title, steps in ours.items():
        for mine, other in zip(steps, theirs[title], strict=True):
            seen = (mine.status, _same(mine.output, *_OURS), _same(mine.errors, *_OURS))
            expected = (other.status, _same(other.output, *_THEIRS), _same(other.errors, *_THEIRS))
            if seen != expected:
                differences.append(f"{mine.line}\n  docker: {expected}\n  corral: {seen}")
    assert differences == [], "\n".join(differences)


def test_the_page_tells_of_it() -> None:
    """docs/cli.md has a row for each part of the hour, with the number of its commands."""
    rows = dict(re.findall(r"^\| ([a-z ]+) \| (\d+) \|", _PAGE.read_text(), re.MULTILINE))
    counted = {title: str(len(text.strip().splitlines())) for title, text in _HOUR.items()}
    assert {title: rows.get(title) for title in counted} == counted
    assert sum(map(int, counted.values())) >= 60
    assert BIN.is_dir()
