"""Settings shared by all tests. Being here, it also puts ``tests/`` on the import path: ``from factories import make_record``."""

from hypothesis import settings

# The same examples on every run, and no verdict that depends on how busy the machine is.
settings.register_profile("reproducible", derandomize=True, deadline=None, database=None)
settings.load_profile("reproducible")
