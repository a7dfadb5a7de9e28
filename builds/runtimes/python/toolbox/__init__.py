"""Scripts that run inside a build's container. Chef itself never imports them."""
