"""What staff see of projects, generations and tokens, and what every admin page here is made of."""

from projects.admin import records  # noqa: F401  (registers the pages)
