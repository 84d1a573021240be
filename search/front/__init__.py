"""Fronts: the non-dominated networks of a search; saving, queries by budget, and the error for budgets that no network keeps."""
