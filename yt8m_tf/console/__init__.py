"""Console output of commands: quiet imports, progress bars, tables."""
