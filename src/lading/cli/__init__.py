"""The command line: one file per command.  The only code that prints and that exits."""
