"""The agent is on every node, runs, sees, and writes down what it sees."""

SUBJECT = "agent"
