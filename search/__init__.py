"""Search: how accurate and how fast each network of a space is, the set of the best, and the answer to any budget from it."""
