"""The verb ``sweep-gamma``: cells of γ × width, where they are computed, and what they say together."""
