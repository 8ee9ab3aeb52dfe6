"""Statements proved by ball arithmetic: critical points, paths, and their checker (needs the extra ``proof``)."""
