"""The command line: one file per command.  No other code prints or exits."""
