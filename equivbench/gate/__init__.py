"""Two result sets compared: noise floors, interleaved rounds, verdicts and the exit code that CI
reads."""
