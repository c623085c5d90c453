"""Networks of other packages as models of the force-field task."""
