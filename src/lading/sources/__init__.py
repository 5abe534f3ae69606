"""Where files live: one file for each kind of source, its contract, and the table of schemes."""
