"""One file a part of the work: `cases(size, folder)` yields what is measured of it."""
