"""One file a backend: a library, or code of ours, that provides some of the operations."""
