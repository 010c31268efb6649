"""Layer 3, adapters: one outside world each, and nothing decided here."""
