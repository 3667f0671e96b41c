"""Speed of this project against plain PyTorch and other tools; see NOTES.md."""
