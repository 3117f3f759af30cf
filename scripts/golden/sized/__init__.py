"""The sized cases (golden/sized): what is asked, and its truth at probes and in sums."""
