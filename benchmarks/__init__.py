"""Side-by-side measurements: our stages and the usual way, on the same work. See RESULTS.md."""
