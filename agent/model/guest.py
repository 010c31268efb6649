"""What a guest says: the exit statuses of its kernel process, as docs/interface-1.md and
agent/guest/finish.h have them, and what it answers to new configuration."""

GUEST_EXITS = {
    75: "its tap was not there",
    78: "it was not started; its journal says why",
    81: "the guest runtime could not read its boot plan",
    82: "the image could not be mounted",
    83: "the data volume could not be mounted",
    84: "the guest's network could not be set up",
    85: "the image's prepare step failed",
    86: "the image's check refused the configuration",
    87: "the service ended",
    88: "the service did not become ready in time",
    89: "the guest runtime failed",
}

RELOAD_FAILED = "reload failed: "
"""Begins the status of a guest that went on with the configuration it had."""

HOST_EXITS = frozenset({75, 78, 81, 84})
"""Those with which the image has nothing to do."""
