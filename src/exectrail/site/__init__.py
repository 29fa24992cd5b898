"""Taking a fleet from nothing to verified and back: what is decided, noted and told of a run."""
