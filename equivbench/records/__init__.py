"""Run records: what is measured, how it is declared, and how it is kept on disk."""
