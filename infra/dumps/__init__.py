"""What is dumped, by which command, what proves that it is whole, and where it is put together. Talks to no network."""
