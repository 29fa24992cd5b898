"""The agent that records what people do inside a node's containers."""

__version__ = "0.1.0"
