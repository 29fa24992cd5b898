"""The items of a node's evidence: their names, and values of the right type."""
