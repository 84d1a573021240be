"""Fronts: the networks of a search that are not dominated, saved, queried, and explained where no network keeps a budget."""
