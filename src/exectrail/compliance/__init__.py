"""Evidence in, results out: what a fit node is and which nodes are fit."""
