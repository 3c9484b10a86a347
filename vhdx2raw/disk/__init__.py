"""The virtual disk: a chain of images, what every range of it holds, and its bytes."""
