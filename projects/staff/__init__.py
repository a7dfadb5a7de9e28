"""What the admin's pages are made of: lists that stay fast, and operations that are confirmed, permitted and noted."""
