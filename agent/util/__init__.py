"""Layer 1: what every program needs and the standard library almost has."""
