"""The asv suite: what a commit could make slower. Values are seconds; the shared set-up is memoised
(asv repeats ``setup``)."""
