"""The API server of every master obeys the audit policy and writes its log."""

SUBJECT = "audit"
