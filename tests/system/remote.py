"""Runs on a lab host for a test run: takes commands at a socket, runs them as root and answers with what
came of them. To enter the host for each of them costs more than most of them do.

    remote.py SOCKET     until standard input ends

One connection is one command: a line of JSON {argv, stdin, timeout_s}. The answer is {status, stdout,
stderr}, or {} where the time was up. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import socketserver
import subprocess
import sys
import threading


class Command(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Run the command."""
        request = json.loads(self.rfile.readline())
        self.wfile.write(json.dumps(_run(**request)).encode())


class Server(socketserver.ThreadingUnixStreamServer):
    """Commands run beside each other."""

    daemon_threads = True
    request_queue_size = 32


def _run(argv: list[str], stdin: str, timeout_s: float) -> dict[str, object]:
    try:
        done = subprocess.run(
            argv,
            input=stdin.encode(),
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}
    except OSError as error:
        return {"status": 127, "stdout": "", "stderr": f"{argv[0]}: {error.strerror}\n"}
    return {"status": done.returncode, "stdout": _text(done.stdout), "stderr": _text(done.stderr)}


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _end_with_caller() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Serve until the caller is gone."""
    path = sys.argv[1]
    early = f"{path}.early"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(early)
    threading.Thread(target=_end_with_caller, daemon=True).start()
    server = Server(early, Command)
    # Who waits for the socket connects as soon as it is there.
    os.replace(early, path)
    server.serve_forever()


if __name__ == "__main__":
    main()
