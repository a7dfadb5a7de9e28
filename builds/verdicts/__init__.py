"""Why a build ended: the catalogue of verdict codes, and the evidence found in tools' output."""
