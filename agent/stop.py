#!/usr/bin/python3 -ISs
"""ExecStop= of appliances with a kernel of their administrator's: asks the guest to shut down, waits until
it has.

The request is `cad` (ctrl-alt-del) on the management console, which the guest runtime takes as an orderly
stop; SIGTERM ends such a kernel at once, with unwritten data. Our own takes it as this request, and needs no
program for it. Whatever fails here, systemd goes on to signal what is left of the unit.
"""

import os
import sys

# The C half of `socket`: importing the whole module costs 8 ms of every stop.
from _socket import AF_UNIX, SOCK_DGRAM, socket
from select import select

# arch/um/drivers/mconsole.h: magic, version, length, data; agent/host/console.py has more of it
MAGIC = 0xCAFEBABE
VERSION = 2
DATA_SIZE = 512


def request(command: bytes) -> bytes:
    """A request datagram of the management console."""
    header = b"".join(number.to_bytes(4, "little") for number in (MAGIC, VERSION, len(command)))
    return header + command.ljust(DATA_SIZE, b"\0")


def main() -> None:
    """`stop NAME`, with $MAINPID as systemd sets it."""
    main_pid = os.environ.get("MAINPID")
    if not main_pid:
        return
    try:
        process = os.pidfd_open(int(main_pid))
        socket(AF_UNIX, SOCK_DGRAM).sendto(
            request(b"cad"), f"/run/appliance/{sys.argv[1]}/uml/guest/mconsole"
        )
    except OSError as error:
        print(f"<4>Cannot ask the guest to stop: {error.strerror}; it will be killed.", file=sys.stderr)
        return
    # No timeout of our own: TimeoutStopSec= ends this program and the guest together.
    select([process], [], [])


if __name__ == "__main__":
    main()
