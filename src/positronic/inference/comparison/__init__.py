"""Several policies on the same seeds, paired, with an exact test."""
