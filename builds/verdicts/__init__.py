"""Why a build ended: the catalogue of codes, and the evidence in what failing tools print."""
