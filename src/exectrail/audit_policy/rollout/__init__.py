"""Audit settings on all masters of a cluster: what is there, what is to change, what was done."""
