"""What commands have in common: how arguments are checked, what is returned and written, and how it looks."""
