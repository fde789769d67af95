"""What a run was made from, whether another one gives the same, and what stands in the way of that."""
