"""Source files on their way in and out: paths, limits, archives, ignore rules, uploads."""
