"""What commands show: quiet imports and tables."""
