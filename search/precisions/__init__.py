"""Precision as a gene: a search over the files of networks in several number formats, on devices that have a table of each."""
