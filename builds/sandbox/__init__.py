"""The sandbox that builds run in: the contract, and its implementation on Docker."""
