"""The sandbox that builds run in: the contract and its Docker implementation."""
