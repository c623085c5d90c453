"""Studies of one paper, each a folder with its measuring, its record, its report and its command
side by side; the core finds them through entry points alone."""
