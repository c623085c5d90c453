"""Settings shared by all tests. Being here, it also puts ``tests/`` on the import path: ``from factories import make_record``."""
