"""What an administrator, or somebody who means harm, may write into a YAML file."""

from __future__ import annotations

from hypothesis import strategies as st

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
