"""Questions to a language model and checked answers: client, retries, budget, the record of exchanges."""
