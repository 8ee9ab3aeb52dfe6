"""The gauntlet: random networks, and what dlnphase says of them against a reference that shares no code with it."""
