"""What a kernel owes its processes, where each page fault and system call is a trap into another one."""

from __future__ import annotations

import pytest

from tests.guest.uml import Boot, Plan


@pytest.mark.parametrize("isolation", ["off", "on"], ids=["strict", "fast"])
@pytest.mark.parametrize("program", ["traps", "registers"])
def test_promises(boot: Boot, program: str, isolation: str) -> None:
    guest = boot(Plan(exec=[f"/usr/bin/{program}"]), arguments=[f"seccomp={isolation}"])
    guest.wait_end()
    assert "passed" in guest.lines, guest.describe()
