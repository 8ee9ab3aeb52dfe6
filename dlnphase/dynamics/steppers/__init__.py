"""What takes one step of the flow: one method per file."""
