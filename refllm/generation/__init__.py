"""Generation: the choice of a token, the cache of keys and values, and the loop over both."""
