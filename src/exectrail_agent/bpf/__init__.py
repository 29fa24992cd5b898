"""The kernel half of the bpf sensor, and what is needed to talk to it."""
