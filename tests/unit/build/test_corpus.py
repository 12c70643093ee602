"""Dockerfiles as people write them, read by us and by the package dockerfile-parse: the same instructions and lines.

Left out is what that package reads otherwise than Docker: blank lines in a continuation, here-documents, `escape`.
"""

from __future__ import annotations

import io

import pytest
from dockerfile_parse import DockerfileParser

from corral.build import dockerfile

CORPUS = {
    "web server": """\
FROM debian:bookworm-slim AS base
# a comment
RUN apt-get update && \\
    # inside a continuation
    apt-get install -y --no-install-recommends \\
      nginx ca-certificates \\
    && rm -rf /var/lib/apt/lists/*

EXPOSE 80/tcp 443
STOPSIGNAL SIGQUIT
CMD ["nginx", "-g", "daemon off;"]
""",
    "stages": """\
ARG VERSION=20
FROM node:${VERSION} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci
COPY . .
RUN npm run build

FROM nginx:alpine
COPY --from=build --chown=101:101 /app/dist /usr/share/nginx/html
HEALTHCHECK --interval=5s --retries=3 CMD wget -q -O- http://localhost/ || exit 1
""",
    "quoting": """\
FROM busybox
ENV A=1 B="two words" C=three\\ words \\
    D='single "quoted"'
ENV OLD the old form
LABEL maintainer="somebody" \\
      description="a \\
longer one"
RUN echo "a # that is no comment" && echo 'b'
""",
    "indented and lower case": """\
   from busybox
   run   echo   spaces
	workdir	/tabs
maintainer somebody <a@example.org>
""",
    "comments in a continuation": """\
FROM busybox
RUN echo a \\
    && echo b \\
# between
    && echo c
USER nobody:nogroup
""",
    "the last line has no newline": "FROM scratch\nADD rootfs.tar.xz /\nENTRYPOINT /bin/init",
    "carriage returns": "FROM busybox\r\nRUN echo a && \\\r\n    echo b\r\nCMD true\r\n",
    "shells": """\
FROM busybox
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN make
VOLUME ["/data", "/more"]
VOLUME /third
RUN ["sh", "-c", "echo exec form"]
ARG EMPTY
""",
}


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("text", CORPUS.values(), ids=CORPUS)
def test_the_same_as_another_parser(text: str) -> None:
    theirs = [
        (found["instruction"], found["startline"] + 1, found["endline"] + 1, squeezed(found["value"]))
        for found in DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
        if found["instruction"] != "COMMENT"
    ]
    ours = []
    for node in dockerfile.parse(text).nodes:
        flags = " ".join(f"--{name}" if value is None else f"--{name}={value}" for name, value in node.flags)
        ours.append((node.name, node.place.first, node.place.last, squeezed(f"{flags} {node.text}")))
    assert ours == theirs
