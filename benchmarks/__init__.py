"""The asv suite: what a commit could make slower. Values are seconds; the shared set-up is memoised
(asv repeats ``setup``)."""

import sys

if sys.argv[1:2] == ["setup_cache"]:
    # asv times in the processes that it begins so; in an environment that was there already it sets
    # no variables for them.
    from equivbench.environment import keep_memory

    keep_memory()
