"""What can be loaded and how it is fetched."""
