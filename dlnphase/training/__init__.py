"""The verb ``train``: settings → starting networks → records → result."""
