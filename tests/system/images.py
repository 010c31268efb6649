"""A small image whose service misbehaves on request: busybox httpd with one CGI program for each way to go
wrong."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

NAME = "misbehave"
_DIRECTORIES = ("proc", "sys", "dev", "run", "tmp", "etc", "bin", "data", "www/cgi-bin", "usr/lib/appliance")
_LINKS = ("resolv.conf", "hosts", "hostname", "localtime")

_CGI = {
    # The service ends: its main process is the parent of the one that serves this connection.
    "exit": "kill -9 $(sed -n 's/^PPid:[[:space:]]*//p' /proc/$PPID/status)",
    "panic": "echo c >/proc/sysrq-trigger",
    "unhealthy": "touch /tmp/unhealthy",
    # For a while it has no address, and what runs in it does not notice.
    "away": "setsid sh -c 'ip address del $0 dev vec0; sleep 20; ip address add $0 dev vec0' 10.88.0.80/24"
    " <&- >/dev/null 2>&1 &",
    "healthy": "rm -f /tmp/unhealthy",
    "count": "n=$(cat /data/count 2>/dev/null); echo $((n + 1)) >/data/count; sync; cat /data/count",
    "size": "df -k /data | tail -n 1",
    "about": "hostname; ip -o address; cat /etc/resolv.conf /run/appliance/config/greeting; date +%Z",
    "hosts": "cat /etc/hosts",
    # No wget: it looks up the port of http, for which static programs need libraries.
    "fetch": r"printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 3 $QUERY_STRING 80 2>&1 || echo no answer",
    "system-calls": "time dd if=/dev/zero of=/dev/null bs=1 count=100000 2>&1",
    "log": "logger -p daemon.err -t tester to syslog; echo to stdout; echo '<4>with a prefix' >/dev/console",
}

_MANIFEST = """\
interface: 1
name: {name}
version: "{version}"
vendor: test.example
architecture: x86_64
role: {role}
service:
  prepare: [/bin/busybox, sh, -c, "test ! -e /run/appliance/config/fail-prepare{prepare}"]
  check:
    - /bin/busybox
    - sh
    - -c
    - cd /run/appliance/config; test ! -e fail-check -a ! -e fail-check-of-{version}
  exec: {exec}
  ready: {{tcp: {port}}}
  ready-timeout: 3s
  stop: {{signal: TERM, timeout: 2s}}
  reload: {{signal: HUP}}
health: {{exec: [/bin/busybox, sh, -c, "test ! -e /tmp/unhealthy || {{ echo out of order; exit 1; }}"]}}
data: {{mount: /data, format: {format}, reads: {reads}}}
requests: {{memory: {memory}, ports: [{ports}]}}
"""
SERVE = '[/bin/busybox, httpd, -f, -p, "80", -h, /www]'
CRASH = "[/bin/busybox, false]"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What an image says and does; without changes it is a web server that behaves until it is told not
    to."""

    name: str = NAME
    version: str = "1"
    role: str = "test/1"
    exec: str = SERVE
    prepare: str = ""
    port: int = 80
    format: int = 1
    reads: str = "[1]"
    memory: str = "32M"
    ports: str = "80/tcp"


def build(directory: Path, kind: Kind = Kind()) -> Path:
    """Make the image file."""
    root = directory / f"{kind.name}-{kind.version}"
    for path in _DIRECTORIES:
        (root / path).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for link in _LINKS:
        (root / "etc" / link).symlink_to(f"/run/appliance/{link}")
    (root / "www/index.html").write_text(f"{kind.name} {kind.version}\n", encoding="ascii")
    for cgi, text in _CGI.items():
        program = root / "www/cgi-bin" / cgi
        shell = (
            "#!/bin/busybox sh\nexport PATH=/run/appliance/bin\nprintf 'Content-Type: text/plain\\n\\n'\n"
        )
        program.write_text(f"{shell}{text}\n", encoding="ascii")
        program.chmod(0o755)
    (root / "usr/lib/appliance/manifest.yaml").write_text(_MANIFEST.format(**asdict(kind)), encoding="ascii")
    image = directory / f"{kind.name}-{kind.version}.squashfs"
    squash = ["mksquashfs", str(root), str(image), "-all-root", "-comp", "zstd", "-quiet", "-no-progress"]
    subprocess.run(squash, check=True, stdout=subprocess.DEVNULL)
    return image
