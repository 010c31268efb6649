"""The network as the prober sees it: appliances that answer as they are told to."""

from __future__ import annotations

import threading

from agent.model.address import Address
from agent.model.probe import Probe


class FakeProbes:
    """`answers` holds the reason by probe, or an error to raise; what is not in it is answered well."""

    def __init__(self) -> None:
        self.answers: dict[Probe, str | Exception] = {}
        self.asked: list[tuple[Probe, Address]] = []
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def ask(self, probe: Probe, address: Address, *, timeout_s: float) -> str:
        self.threads.add(threading.current_thread().name)
        self.asked.append((probe, address))
        self.gate.wait(timeout_s)
        answer = self.answers.get(probe, "")
        if isinstance(answer, Exception):
            raise answer
        return answer
