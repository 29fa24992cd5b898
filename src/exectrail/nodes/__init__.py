"""Reaching nodes: which there are, what is run on them, and what they said."""
