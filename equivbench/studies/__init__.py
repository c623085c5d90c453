"""Studies of one paper, each a folder with its measuring, record, report and command side by side."""
