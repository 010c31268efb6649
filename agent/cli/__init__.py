"""Layer 6: appliancectl. Speaks to the agent over D-Bus and to systemd by its own tools; decides nothing."""
