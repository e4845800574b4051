"""De-duplication that deletes only duplicates: MinHash candidates, exact verification, greedy selection."""
