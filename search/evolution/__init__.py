"""Evolution of encoded archs in arrays, the archive of evaluated networks, and Pareto dominance."""
