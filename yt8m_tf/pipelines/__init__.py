"""Pipelines: from records to one exported graph, as a plain table of stages; an interrupted run can be continued."""
