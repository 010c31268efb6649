"""What an administrator, or somebody who means harm, may write into a YAML file."""

from __future__ import annotations

from hypothesis import strategies as st

from agent.model.probe import (
    DnsProbe,
    DnsStatus,
    DnsType,
    HttpProbe,
    NtpProbe,
    PingProbe,
    Probe,
    SmtpProbe,
    TcpProbe,
    UdpProbe,
)

# Text that ends lines for one reader or another, or starts sections, specifiers or escape sequences.
HOSTILE_TEXTS = (
    "\n[Service]\nExecStartPre=/bin/sh",
    "a\r\nb",
    "a\x85b",
    "a\u2028b",
    "a\x0bb",
    "a\x00b",
    "a\x1b[2Jb",
    "[Install]",
    "%n %% %",
    "a\\",
    "$(reboot) `reboot` ${PATH} ; reboot",
    "{notify} {tap0}",
    "../../etc/shadow",
    "/../etc/shadow",
    "/usr/lib/../../etc",
    "a b",
    "'\"",
    "#",
    ": ",
    "",
    "\u202e\u00a0",
    "ä" * 300,
    "x" * 5000,
)

hostile_texts = st.sampled_from(HOSTILE_TEXTS) | st.text(max_size=30)

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | hostile_texts

values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(hostile_texts, inner, max_size=4),
    max_leaves=8,
)

_labels = st.from_regex(r"\A[a-z0-9_]([a-z0-9-]{0,10}[a-z0-9])?\Z")
_ports = st.integers(1, 65535)
probes: st.SearchStrategy[Probe] = st.one_of(
    st.builds(TcpProbe, _ports),
    st.builds(UdpProbe, _ports),
    st.builds(
        DnsProbe,
        st.lists(_labels, min_size=1, max_size=4).map(".".join),
        st.sampled_from(DnsType),
        st.sampled_from(DnsStatus),
        _ports,
    ),
    st.builds(
        HttpProbe,
        st.from_regex(r"\A/[!-~]{0,40}\Z"),
        st.just(0) | st.integers(200, 599),
        st.text(st.characters(exclude_categories=("C", "Z")) | st.just(" "), max_size=20),
        _ports,
    ),
    st.just(PingProbe()),
    st.builds(NtpProbe, _ports),
    st.builds(SmtpProbe, _ports),
)
