"""Layer 4: decisions. Adapters come in through constructors."""
