"""What lading asks of Linux beyond the standard library's calls."""
