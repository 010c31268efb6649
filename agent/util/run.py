"""The one gateway to other programs: a known environment, no shell, and one way to report failure."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO

from agent.model.errors import HostError, Problem

_MAX_STDERR_BYTES = 64 << 10
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**_ENVIRONMENT, **(extra or {})}


def _failure(argv: Sequence[str], status: int, stderr: bytes) -> HostError:
    lines = stderr.decode(errors="replace").strip().splitlines()
    said = f": {lines[-1]}" if lines else ""
    how = f"was killed by signal {-status}" if status < 0 else f"failed with exit status {status}"
    problem = Problem.NO_SPACE if b"No space left on device" in stderr else Problem.FAILED
    return HostError(f"{os.path.basename(argv[0])} {how}{said}", problem=problem)


def _missing(argv: Sequence[str]) -> HostError:
    return HostError(
        f"{argv[0]} is not installed.",
        problem=Problem.NOT_SUPPORTED,
        remedy="`appliancectl doctor` lists what this host lacks.",
    )


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
    accept: Collection[int] = (0,),
    on_start: Callable[[int], object] = lambda _pid: None,
) -> bytes:
    """Run a program to its end and return its standard output. `on_start` is called with its process ID.

    HostError where it is missing, too slow, or ends with a status that is not in `accept`.
    """
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(environment),
        )
    except FileNotFoundError as error:
        raise _missing(argv) from error
    with process:
        on_start(process.pid)
        try:
            stdout, stderr = process.communicate(stdin, timeout_s)
        except subprocess.TimeoutExpired as error:
            late = f"{argv[0]} took longer than {timeout_s:g} s."
            raise HostError(late, problem=Problem.TIMED_OUT) from error
        finally:
            if process.poll() is None:
                process.kill()
    if process.returncode not in accept:
        raise _failure(argv, process.returncode, stderr)
    return stdout


@contextlib.contextmanager
def writing_through(argv: Sequence[str], target: IO[bytes]) -> Iterator[IO[bytes]]:
    """Run a program for the block, which reads what the block writes and writes to `target`. HostError where
    it is missing or fails."""
    with tempfile.TemporaryFile() as stderr:
        process = _filter(argv, subprocess.PIPE, target, stderr)
        if process.stdin is None:
            raise LookupError("there is a pipe")
        try:
            with process.stdin:
                yield process.stdin
        except BrokenPipeError:
            pass  # its exit status says more
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status := process.wait():
            stderr.seek(0)
            raise _failure(argv, status, stderr.read(_MAX_STDERR_BYTES))


@contextlib.contextmanager
def reading_through(argv: Sequence[str], source: IO[bytes]) -> Iterator[IO[bytes]]:
    """Run a program for the block, which reads `source`, and whose output the block reads as far as it
    likes. What it did not finish then is lost; a failure shows as an early end."""
    with tempfile.TemporaryFile() as stderr:
        process = _filter(argv, source, subprocess.PIPE, stderr)
        if process.stdout is None:
            raise LookupError("there is a pipe")
        try:
            with process.stdout:
                yield process.stdout
        finally:
            process.kill()
            process.wait()


def _filter(
    argv: Sequence[str], stdin: int | IO[bytes], stdout: int | IO[bytes], stderr: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr, env=_environment(None))
    except FileNotFoundError as error:
        raise _missing(argv) from error


def run_bounded(argv: Sequence[str], *, stdin: int, limit_bytes: int, timeout_s: float = 10.0) -> bytes:
    """As `run`, for programs that read foreign content from the descriptor `stdin`.

    HostError also where it writes more than `limit_bytes` to standard output: it is killed then.
    """
    with tempfile.TemporaryFile() as stderr:
        try:
            process = subprocess.Popen(
                argv, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env=_environment(None)
            )
        except FileNotFoundError as error:
            raise _missing(argv) from error
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            with process:
                output = process.stdout.read(limit_bytes + 1) if process.stdout else b""
                too_large = len(output) > limit_bytes
                if too_large:
                    process.kill()
            timed_out = not timer.is_alive()
        finally:
            timer.cancel()
            timer.join()
        stderr.seek(0)
        said = stderr.read(_MAX_STDERR_BYTES)
    if timed_out:
        raise HostError(f"{argv[0]} took longer than {timeout_s:g} s.", problem=Problem.TIMED_OUT)
    if too_large:
        raise HostError(f"{argv[0]} wrote more than {limit_bytes} bytes.")
    if process.returncode:
        raise _failure(argv, process.returncode, said)
    return output
