"""What live readers of builds and generations are sent."""
