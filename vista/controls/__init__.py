"""Controls: visual tokens that are changed on purpose, to show what a metric rewards."""
