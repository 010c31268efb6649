"""Layer 0, vocabulary: frozen dataclasses and enums that every other layer speaks in. No I/O."""
