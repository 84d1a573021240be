"""Precision as a gene: a search over networks in several number formats, on devices with a latency table for each format."""
