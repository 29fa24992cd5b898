"""The nodes themselves, and what a profile of your own asks for."""

SUBJECT = "node"
