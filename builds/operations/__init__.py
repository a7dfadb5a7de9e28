"""How the installation runs: health, overview, heartbeats, usage, staff roles."""
