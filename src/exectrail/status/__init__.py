"""How the agents and the audit policy of a fleet are now, on one screen."""
