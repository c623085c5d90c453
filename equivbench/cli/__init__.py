"""The command line: one file a command, each imported only when that command is called."""
