"""The claims of the paper as data, what the records at hand say to each, and the page that shows
it."""
