"""The verb ``detect-saddles``: a path of ours or of another code in, its visits and certificates out."""
