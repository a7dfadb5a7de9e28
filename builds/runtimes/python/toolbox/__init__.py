"""Scripts that run inside a build's container. Nothing of Chef imports them."""
