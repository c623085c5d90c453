"""``python -m equivbench``: the command line where its script is not on the path."""

from equivbench.cli.main import main

if __name__ == "__main__":
    main()
