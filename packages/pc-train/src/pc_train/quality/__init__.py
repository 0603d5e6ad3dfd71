"""What features are like without training on them."""
