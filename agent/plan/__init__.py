"""Layer 2, pure: from settings to the exact text, bytes and names that the host is to have."""
