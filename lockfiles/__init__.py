"""What is pinned: every byte that enters an image, by content, and the code that resolves, checks and fetches it."""
