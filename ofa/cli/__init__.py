"""The command line: one file per command group, and the only code that prints."""
