"""Pipelines: from records to one exported graph, as a plain table of stages that a killed run goes on in."""
