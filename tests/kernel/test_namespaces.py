"""The fixture every other test of this tier relies on."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.kernel.conftest import own_namespaces


def test_namespaces_are_left_even_while_another_thread_is_there() -> None:
    def namespaces() -> set[str]:
        return {str(Path(f"/proc/thread-self/ns/{kind}").readlink()) for kind in ("mnt", "net")}

    before, release = namespaces(), threading.Event()
    thread = threading.Thread(target=release.wait)
    try:
        with own_namespaces():
            assert not namespaces() & before
            thread.start()
        assert namespaces() == before
    finally:
        release.set()
        thread.join()
